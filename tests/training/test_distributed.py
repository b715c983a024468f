"""Roll call: who is late, double or dead is named; the rest does not hang."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from fusar_jax.training.distributed import find
from fusar_jax.training.rendezvous import PEER_LOST, Cluster, Rendezvous

# Reports that it runs, then waits or fails by its input. The report has a pipe
# of its own: Gloo writes to stdout in parts, from another thread.
_PROCESS = """
import os, sys
from fusar_jax.training import distributed
report = os.fdopen(int(sys.argv[1]), "w", buffering=1)
with distributed.initialized():
  print("joined", file=report)
  if sys.stdin.readline() == "fail\\n":
    raise FileNotFoundError("manifest not found: nowhere.jsonl")
print("done", file=report)
"""


@pytest.fixture
def port(free_port) -> int:
  return free_port()


def test_variables_tell_where_the_processes_are():
  given = {
    "FUSAR_COORDINATOR": "10.0.0.7:8476",
    "FUSAR_PROCESSES": "4",
    "FUSAR_PROCESS": "3",
    "FUSAR_HOSTS": "a,b,c,d",
  }
  cluster = find(given)
  assert cluster == Cluster("10.0.0.7", 8476, 4, 3, None, ("a", "b", "c", "d"))
  assert cluster.name(2) == "process 2 of 4 (c)"


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (("h:1", "2", ""), "FUSAR_PROCESSES given without FUSAR_PROCESS; all"),
    (("h:1", "2", "2"), r"FUSAR_PROCESS=2: expected 0\.\.1"),
    (("h", "2", "0"), "FUSAR_COORDINATOR=h .*expected HOST:PORT"),
  ],
)
def test_variables_that_make_no_sense_are_rejected(given, message):
  names = ("FUSAR_COORDINATOR", "FUSAR_PROCESSES", "FUSAR_PROCESS")
  with pytest.raises(ValueError, match=message):
    find(dict(zip(names, given)))


def test_slurm_and_gke_number_the_processes():
  step = {
    "FUSAR_COORDINATOR": "node3:8476",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "FUSAR_HOSTS": "node3,node4",
  }
  cluster = find(step)
  assert cluster == Cluster("node3", 8476, 2, 1, (0,), ("node3", "node4"))
  per_node = find(step | {"JAX_LOCAL_DEVICE_IDS": "0,1,2,3"})
  assert per_node.devices == (0, 1, 2, 3)
  assert find(step | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) is None
  slice_ = {"TPU_WORKER_HOSTNAMES": "w-0.svc,w-1.svc", "TPU_WORKER_ID": "1"}
  assert find(slice_) == Cluster(
    "w-0.svc", 8482, 2, 1, hosts=("w-0.svc", "w-1.svc")
  )
  assert find(slice_ | {"MEGASCALE_COORDINATOR_ADDRESS": "w-0.svc"}) is None
  assert (
    find({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}) is None
  )


def test_who_does_not_come_is_named_to_all_who_did(port):
  hosts = ("a", "b", "c")
  first, last = (
    _call(Cluster("127.0.0.1", port, 3, i, hosts=hosts), 1.5) for i in (0, 2)
  )
  for heard in (first(), last()):
    assert isinstance(heard, TimeoutError)
    assert "process 1 of 3 (b) did not connect to 127.0.0.1" in str(heard)
    assert f"Connected: 0 on {socket.gethostname()}, 2 on" in str(heard)


def test_train_may_be_repeated_when_a_process_did_not_come(
  port, run_module, tmp_path
):
  variables = _of_fusar(port, 0) | {"FUSAR_START_SECONDS": "1"}
  stage1 = ("--config=configs/stage1.py:model=tiny", f"--workdir={tmp_path}/a")
  out = run_module("fusar_jax.train", *stage1, **variables)
  assert out.returncode == PEER_LOST, out.stderr
  assert "process 1 of 2 did not connect" in out.stderr


def test_two_processes_of_one_number_are_rejected(port):
  calls = [_call(Cluster("127.0.0.1", port, 3, i), 20) for i in (0, 1, 1)]
  heard = [call() for call in calls]
  assert isinstance(heard[0], ValueError)
  assert "two processes have number 1" in str(heard[0])
  assert all(isinstance(error, TimeoutError) for error in heard[1:])


@pytest.mark.parametrize(("variables", "dies"), [("fusar", 0), ("open_mpi", 1)])
def test_a_death_ends_the_other_process_by_name(port, variables, dies):
  processes = _start(port, _VARIABLES[variables])
  processes[dies].kill()
  _, error = processes[1 - dies].communicate(timeout=60)
  # Ours, or that of JAX's client, which may notice before the grace is over.
  assert processes[1 - dies].returncode in (PEER_LOST, -signal.SIGABRT)
  who = f"process {dies} of 2 on {socket.gethostname()} pid"
  assert f"{who} {processes[dies].pid} died" in error
  assert processes[dies].wait() == -signal.SIGKILL


def test_a_failure_is_reported_to_the_other_process(port):
  processes = _start(port)
  errors = []
  processes[1].stdin.write("fail\n")
  processes[1].stdin.flush()
  for process in processes:
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    errors.append(error)
  assert "FileNotFoundError: manifest not found: nowhere.jsonl" in errors[1]
  assert "process 1 of 2" in errors[0]
  assert "stopped: FileNotFoundError: manifest not found" in errors[0]


def test_processes_that_end_well_end_together(port):
  processes = _start(port)
  for process in processes:
    process.stdin.write("end\n")
    process.stdin.flush()
  for process in processes:
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert process.report.read() == "done\n"


def _of_fusar(port: int, index: int) -> dict[str, str]:
  return {
    "FUSAR_COORDINATOR": f"127.0.0.1:{port}",
    "FUSAR_PROCESSES": "2",
    "FUSAR_PROCESS": str(index),
  }


def _of_open_mpi(port: int, index: int) -> dict[str, str]:
  """What `mpirun` sets and JAX detects; JAX derives its port from the job."""
  return {
    "OMPI_MCA_orte_hnp_uri": f"{port}.0;tcp://127.0.0.1:{port}",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": str(index),
    "OMPI_COMM_WORLD_LOCAL_RANK": str(index),
  }


_VARIABLES = {"fusar": _of_fusar, "open_mpi": _of_open_mpi}


class _Process(subprocess.Popen):
  """One process of a run; `report` is what it says of itself."""

  def __init__(self, variables: dict[str, str]):
    reads, writes = os.pipe()
    super().__init__(
      [sys.executable, "-c", _PROCESS, str(writes)],
      env=os.environ | {"JAX_PLATFORMS": "cpu"} | variables,
      text=True,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      pass_fds=(writes,),
    )
    os.close(writes)
    self.report = os.fdopen(reads)


def _start(port: int, variables=_of_fusar) -> list[_Process]:
  """Two processes that have joined."""
  processes = [_Process(variables(port, index)) for index in range(2)]
  for process in processes:
    line = process.report.readline()
    if line != "joined\n":
      for each in processes:
        each.kill()  # Else its stderr would never end.
      pytest.fail(f"{line!r}: {process.stderr.read()}")
  return processes


def _call(cluster: Cluster, seconds: float):
  """Calls the roll in a thread; returns () -> None, or what it raised."""
  heard = []

  def call():
    try:
      Rendezvous(cluster).call(seconds)
    except (TimeoutError, ValueError) as error:
      heard.append(error)

  thread = threading.Thread(target=call, daemon=True)
  thread.start()

  def result():
    thread.join(60)
    assert not thread.is_alive()
    return heard[0] if heard else None

  return result
