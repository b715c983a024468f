"""`tpu_vm.sh watch` on a simulated slice: it resumes, and it terminates.

A stand-in for `gcloud` stores the state of one slice and the exit codes of its
workers. Each of its commands can be made to fail: every loop of the script must
terminate, and with AUTODOWN no billed resource may remain.
"""

import subprocess

import pytest

LIMITS = {"SECONDS_APART": "0.01", "ATTEMPTS": "2", "RESTARTS": "1"}
# Each command appends a word to `did`. A line of `states` or `codes` replaces
# the answer of the slice; "-" leaves the answer.
GCLOUD = r"""case "$*" in
  *"queued-resources list"*) kind=list ;;
  *"queued-resources create"*) kind=create ;;
  *"queued-resources delete"*) kind=delete ;;
  *"worker.sh code"*) kind=code ;;
  *"worker.sh idle"*) kind=idle ;;
  *"worker.sh setup"*) kind=setup ;;
  *"worker.sh run"*) kind=run ;;
  *"worker.sh stop"*) kind=stop ;;
  *"tar -xf"*) kind=unpack ;;
  *"tail -n 50"*) kind=log ;;
  *scp*environment*) kind=environment ;;
  *scp*) kind=copy ;;
esac
echo $kind >>did
[[ " $FAILING " != *" $kind "* ]] || exit 1
next() {
  local line=-
  if [[ -s $1 ]]; then
    line="$(head -n 1 $1)"
    sed -i 1d $1
  fi
  [[ $line == - ]] || echo "$line" >$2
}
touch state code
case $kind in
  list) next states state; cat state ;;
  code) next codes code; tr ' ' '\n' <code ;;
  create) echo "${CREATED:-ACTIVE}" >state; echo new new >code ;;
  delete) : >state ;;
  environment) cp "$5" sent ;;
  run) echo "${ENDS:-running running}" >code ;;
  stop) echo 75 75 >code ;;
esac
"""
GIT = """echo git >>did
[[ " $FAILING " != *" git "* ]] || exit 1
for word in "$@"; do
  [[ "$word" != --output=* ]] || touch "${word#--output=}"
done
"""
SETUP = "idle git copy unpack setup"
START = f"{SETUP} environment run"


class Cloud:
  """A sandbox whose `gcloud` simulates one slice."""

  def __init__(self, sandbox, given):
    self.sandbox, self.given, self.folder = sandbox, given, sandbox.folder
    sandbox.stand_in("gcloud", GCLOUD)
    sandbox.stand_in("git", GIT)
    (self.folder / "tmp").mkdir()

  def watch(self, **variables: str) -> subprocess.CompletedProcess:
    values = self.given | LIMITS | {"TMPDIR": str(self.folder / "tmp")}
    arguments = ("watch", "--config=c.py")
    out = self.sandbox.launch("tpu_vm", *arguments, **values | variables)
    assert list((self.folder / "tmp").iterdir()) == []
    return out

  def write(self, name: str, *lines: str) -> None:
    (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

  def did(self, *without: str) -> str:
    words = self.sandbox.read("did").split()
    return " ".join(word for word in words if word not in without)


@pytest.fixture
def cloud(sandbox, given) -> Cloud:
  return Cloud(sandbox, given)


def test_a_preempted_run_is_brought_to_its_end(cloud):
  """The first slice is preempted; on the second the run is preempted once."""
  cloud.write("states", "-", "PROVISIONING", "ACTIVE", "-", "SUSPENDED")
  cloud.write("codes", "-", "-", "-", "75 75", "-", "0 0")
  out = cloud.watch(ATTEMPTS="3")
  assert out.returncode == 0, out.stderr
  assert cloud.did("list", "code") == (
    f"create {START} delete create {START} {START}"
  )
  assert "the slice is billed until" in out.stderr


def test_a_run_that_is_going_on_is_watched_and_not_touched(cloud):
  cloud.write("state", "ACTIVE")
  cloud.write("code", "running running")
  cloud.write("codes", "-", "0 running", "0 0")
  out = cloud.watch(AUTODOWN="1")
  assert out.returncode == 0, out.stderr
  assert cloud.did("list") == "code code code delete"
  assert "watching it" in out.stderr


@pytest.mark.parametrize(
  ("ends", "code"),
  [
    # Failures are retried RESTARTS times, lost hosts ATTEMPTS times.
    ("1 76", 1),
    ("134 76", 134),
    ("76 76", 1),
    ("75 75", 1),
    ("new 76", 1),
  ],
)
def test_a_run_that_does_not_succeed_is_given_up(cloud, ends, code):
  out = cloud.watch(ENDS=ends, AUTODOWN="1")
  assert out.returncode == code, out.stderr
  assert cloud.did("list", "code") == f"create {START} {START} log delete"


@pytest.mark.parametrize(
  "step", [*START.split(), "list", "create", "code", "delete"]
)
def test_a_step_that_always_fails_ends_watch(cloud, step):
  ends = "0 0" if step == "delete" else "running running"
  out = cloud.watch(FAILING=step, AUTODOWN="1", ENDS=ends)
  assert out.returncode == 1
  did = cloud.did().split()
  assert did.count(step) == {
    "list": 30, "code": 30, "delete": 30
  }.get(step, 2)  # fmt: skip
  if step == "delete":
    assert "could not be deleted" in out.stderr
  else:
    assert did[-1] == "delete"
    assert (cloud.folder / "state").read_text() == ""


def test_a_slice_that_never_comes_is_asked_for_so_often(cloud):
  out = cloud.watch(CREATED="FAILED", AUTODOWN="1")
  assert out.returncode == 1
  assert cloud.did("list") == "create delete create delete log delete"
  assert "ATTEMPTS allows more" in out.stderr


def test_when_the_hours_are_over_the_run_saves_first(cloud):
  cloud.write("state", "ACTIVE")
  cloud.write("code", "running running")
  out = cloud.watch(HOURS="0", AUTODOWN="1")
  assert out.returncode == 124
  assert cloud.did() == "stop code log delete"


def test_the_run_gets_variables_that_no_command_shows(cloud):
  cloud.write("codes", "-", "0 0")
  out = cloud.watch(
    HF_TOKEN="se'cret",
    LIBTPU_INIT_ARGS="--a=1 --b=2",
    JAX_PLATFORMS="cpu",
    OTHER="1",
  )
  assert out.returncode == 0, out.stderr
  assert "cret" not in out.stderr + out.stdout
  shown = cloud.sandbox.run(
    "bash", "-c", '. ./sent; echo "$HF_TOKEN $LIBTPU_INIT_ARGS"'
  )
  assert shown.stdout == "se'cret --a=1 --b=2\n"
  text = cloud.sandbox.read("sent")
  assert "JAX_PLATFORMS" not in text
  assert "OTHER" not in text


def test_two_slices_are_set_up_and_run_together(cloud):
  out = cloud.watch(SLICES="2", ENDS="0 0")
  assert out.returncode == 0, out.stderr
  assert sorted(cloud.did("list", "code").split()) == sorted(
    ("create " + "git " + (START.replace("git ", "") + " ") * 2).split()
  )


def test_one_of_two_slices_that_fails_fails_the_command(cloud):
  """The second is not set up: the run is not started on the first either."""
  cloud.sandbox.stand_in(
    "gcloud",
    '[[ "$*" != *stage1-1*"worker.sh setup"* ]] || exit 1\n' + GCLOUD,
  )
  out = cloud.watch(SLICES="2")
  assert out.returncode == 1
  assert "run" not in cloud.did().split()
  assert "started 2 times" in out.stderr
