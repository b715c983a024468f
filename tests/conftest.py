"""Fixtures of the test suite: reference data, compilation cache, and short
runs of `train`.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from fusar_jax import command_line

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One compilation cache for the suite: XLA takes most of its time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight simulated devices, to test sharding. On two shared cores one device may
# join a collective late; XLA would end the process after 40 s, the default.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_force_host_platform_device_count=8"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600",
)
# XLA's thread count, by default the maximum of cores and devices. Each waiting
# collective blocks a thread. If devices start independent collectives in
# different orders (seen with jaxlib 0.10.2 and cached programs), eight threads
# for eight devices deadlock.
os.environ.setdefault("NPROC", "32")


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Folder of reference values and real data (environment: FUSAR_SHARED)."""
  folder = pathlib.Path(os.environ.get("FUSAR_SHARED", ROOT / "../shared"))
  if not (folder / "golden").is_dir():
    reason = f"reference values not found in {folder} (set FUSAR_SHARED)"
    if os.environ.get("FUSAR_REQUIRE_SHARED") == "1":
      pytest.fail(reason)
    pytest.skip(reason)
  return folder.resolve()


@pytest.fixture(scope="session")
def golden(shared) -> pathlib.Path:
  return shared / "golden"


# Overrides that shrink the tiny model further.
_SHRUNK = {
  "model.image_size": (56, 56),
  "model.vision.depth": 2,
  "model.vision.hidden_size": 32,
  "model.vision.heads": 2,
  "model.vision.intermediate_size": 64,
  "model.vision.out_width": 64,
  "model.vision.full_attention": (1,),
  "model.decoder.layers": 2,
  "model.decoder.hidden_size": 64,
  "model.decoder.heads": 4,
  "model.decoder.kv_heads": 2,
  "model.decoder.head_dim": 16,
  "model.decoder.intermediate_size": 96,
  "model.decoder.mrope_section": (2, 3, 3),
  "batch_size": 8,
  "steps": 6,
  "log_every_steps": 2,
  "save_every_steps": 2,
}


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> pathlib.Path:
  """20 small images of bright squares with anchors; the task is counting."""
  folder = tmp_path_factory.mktemp("squares")
  rng = np.random.default_rng(0)
  rows = []
  for i in range(20):
    image = rng.integers(0, 60, (56, 56, 3), dtype=np.uint8)
    count = i % 4
    for y, x in rng.integers(0, 50, (count, 2)):
      image[y : y + 6, x : x + 6] = 255
    Image.fromarray(image).save(folder / f"{i}.png")
    np.savez(
      folder / f"{i}.npz",
      features=rng.normal(size=(5, 64)).astype(np.float32),
      positions=rng.uniform(size=(5, 2)).astype(np.float32),
    )
    rows.append(
      {
        "id": f"square-{i}",
        "image": f"{i}.png",
        "aef": f"{i}.npz",
        "coordinate_size": 56,
        "question": "How many ships are in the image?",
        "answer": f"There are {count} ships in the image.",
      }
    )
  path = folder / "manifest.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  (folder / "dataset.json").write_text('{"licences": ["CC0"]}')
  return path


@pytest.fixture(scope="session")
def shrunk() -> dict:
  """Config fields that shrink the tiny model further and shorten its run."""
  return dict(_SHRUNK)


@pytest.fixture(scope="session")
def make_config():
  """make_config(name, manifest, arg=None, **overrides) -> ConfigDict."""
  return _make_config


@pytest.fixture
def read_flags(monkeypatch):
  """read_flags(arguments) -> (config, workdir), as `train` parses them."""

  def read(arguments: list[str]):
    values = flags.FlagValues()
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    command_line.define_config(values)
    flags.DEFINE_string("workdir", "runs/a", "", flag_values=values)
    command_line.parse(sys.argv, ("config", "workdir"), values)
    return values.config, values.workdir

  return read


@pytest.fixture(scope="session")
def start_train():
  """start_train(name, workdir, **flags) -> Popen of `fusar_jax.train`."""
  return _start_train


def _make_config(
  name: str, manifest: pathlib.Path, arg: str | None = None, **overrides
):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(arg)
  config.update_from_flattened_dict(_SHRUNK | {"data.train": str(manifest)})
  config.update_from_flattened_dict(overrides)
  return config


def _start_train(name: str, workdir: pathlib.Path, **flags) -> subprocess.Popen:
  """Starts the command, on one simulated device."""
  values = _SHRUNK | flags
  environment = dict(os.environ)
  environment.pop("XLA_FLAGS", None)
  environment.pop("NPROC", None)
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "fusar_jax.train",
      f"--config=configs/{name}.py",
      f"--workdir={workdir}",
      *(f"--config.{field}={value}" for field, value in values.items()),
    ],
    cwd=ROOT,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  if hasattr(os, "sched_setaffinity"):
    # XLA, which is not loaded yet, starts one thread per available core.
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
  return process


@pytest.fixture(scope="session")
def count_calls():
  """count_calls(function, *arguments) -> number of Python and C calls.

  Counts work instead of time, so that a bound is valid on any machine.
  """

  def count(function, *arguments) -> int:
    calls = 0

    def seen(frame, event, argument):
      nonlocal calls
      calls += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
      function(*arguments)
    finally:
      sys.setprofile(None)
    return calls

  return count


@pytest.fixture(scope="session")
def libtpu() -> None:
  """The TPU compiler from pip; FUSAR_REQUIRE_LIBTPU=1 fails without it."""
  if importlib.util.find_spec("libtpu") is None:
    reason = "libtpu is not installed (pip install libtpu)"
    if os.environ.get("FUSAR_REQUIRE_LIBTPU") == "1":
      pytest.fail(reason)
    pytest.skip(reason)
