"""Fixtures of the test suite: reference data, compilation cache, and short
runs of `train`.
"""

import contextlib
import dataclasses
import gc
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
from http import HTTPStatus
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from fusar_jax import train
from fusar_jax.config import preset
from fusar_jax.model.config import FusarConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent

# One compilation cache for the suite: XLA takes most of its time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Halves the time that XLA takes to compile; `make parity` optimises.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Eight simulated devices, to test sharding. On two shared cores one device may
# join a collective late; XLA would end the process after 40 s, the default.
_XLA_FLAGS = (
  "--xla_force_host_platform_device_count=8"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# These emitters take a third of the time of compilation, and their kernels gain
# nothing on arrays of this size; `make parity` uses them. An unknown flag ends
# the process: jaxlib 0.12 does not have this one, nor has libtpu (`make plan`).
if (
  importlib.metadata.version("jaxlib").startswith("0.10.")
  and importlib.util.find_spec("libtpu") is None
):
  _XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _XLA_FLAGS)
# A tenth of the time of tests would go to searches of JAX's many live objects.
gc.set_threshold(50_000, 20, 20)
# XLA's thread count, by default the maximum of cores and devices. Each waiting
# collective blocks a thread. If devices start independent collectives in
# different orders (seen with jaxlib 0.10.2 and cached programs), eight threads
# for eight devices deadlock.
os.environ.setdefault("NPROC", "32")
# Background jobs of a shell ignore SIGINT; commands under test would too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)


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


# The test model: two layers a side; widths and heads divide by 2.
_VISION = {
  "depth": 2,
  "hidden_size": 32,
  "heads": 2,
  "intermediate_size": 64,
  "out_width": 64,
  "full_attention": (1,),
}
_DECODER = {
  "layers": 2,
  "hidden_size": 64,
  "heads": 4,
  "kv_heads": 2,
  "head_dim": 16,
  "intermediate_size": 96,
  "mrope_section": (2, 3, 3),
}
# Overrides for a short run of it.
_SHRUNK = {
  "model.image_size": (56, 56),
  **{f"model.vision.{name}": value for name, value in _VISION.items()},
  **{f"model.decoder.{name}": value for name, value in _DECODER.items()},
  "batch_size": 8,
  "steps": 6,
  "log_every_steps": 2,
  "save_every_steps": 2,
}


@pytest.fixture(scope="session")
def tiny_model() -> FusarConfig:
  """The preset "tiny" with the shapes of the test model, 56 x 56 pixels."""
  tiny = preset("tiny")
  return dataclasses.replace(
    tiny,
    vision=dataclasses.replace(tiny.vision, **_VISION),
    decoder=dataclasses.replace(tiny.decoder, **_DECODER),
    image_size=(56, 56),
  )


@pytest.fixture(scope="session")
def make_hf_folder(tmp_path_factory):
  """make_hf_folder(config, texts, vocab_size=400, **scales) -> folder.

  A Hugging Face folder: random weights and a tokenizer that is trained on
  `texts`. `scale=4, tlm_scale=8`: factors on all weights, and on the TLM's.
  """

  def make(
    config, texts, *, vocab_size=400, scale=1, tlm_scale=1
  ) -> pathlib.Path:
    # Imported here: most tests need no JAX.
    import jax

    from fusar_jax.data.tokenizer import train_sentencepiece
    from fusar_jax.hf.export import export_merged
    from fusar_jax.model.fusar_gpt import init_params

    folder = tmp_path_factory.mktemp("model")
    train_sentencepiece(
      texts, folder / "words" / "tokenizer.model", vocab_size=vocab_size
    )
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: scale * leaf, params)
    if tlm_scale != 1:
      params["tlm"] = jax.tree.map(lambda x: tlm_scale * x, params["tlm"])
    export_merged(folder / "hf", config, params, tokenizer=folder / "words")
    return folder / "hf"

  return make


@pytest.fixture(scope="session")
def small_base(tiny_model, make_hf_folder) -> pathlib.Path:
  """A random base for simulated scenes, as a Hugging Face folder.

  Its tokenizer knows the prompts, so they are short: compilation for long
  sequences dominates the time of short runs.
  """
  from fusar_jax.data.prompts import SYSTEM
  from fusar_jax.simulation.questions import KINDS
  from fusar_jax.simulation.targets import CLASSES
  from fusar_jax.tasks import (
    captioning,
    classification,
    counting,
    detection,
    grounding,
  )
  from fusar_jax.tasks.description.short import vocabulary

  asked = (counting, grounding, detection)
  texts = [
    f"system\n{SYSTEM}",
    *(f"user\n{task.question(kind)}" for task in asked for kind in KINDS),
    f"user\n{classification.question((1, 2, 3, 4), CLASSES)}",
    f"user\n{captioning.question()}",
  ]
  config = dataclasses.replace(tiny_model, tlm=None)
  return make_hf_folder(config, [*texts * 9, *vocabulary()], vocab_size=1024)


class Called(NamedTuple):
  """Exit code and output of a command; `text` is both, on one line."""

  code: int
  out: str
  err: str

  @property
  def text(self) -> str:
    return " ".join((self.out + self.err).split())


@pytest.fixture
def call(capsys):
  """call(main, *arguments) -> Called; runs a command in this process."""

  def call(main, *arguments) -> Called:
    capsys.readouterr()
    try:
      code = main(list(map(str, arguments)))
    except SystemExit as stop:
      code = stop.code
    return Called(code, *capsys.readouterr())

  return call


@pytest.fixture
def full_disk():
  """full_disk(size): files end at this size, as on a disk without space."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(
    resource.RLIMIT_FSIZE, (size, before[1])
  )
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def run_module():
  """run_module(name, *arguments, **options) -> finished `python -m NAME`."""

  def run(name, *arguments, cwd=ROOT, **environment):
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
      [sys.executable, "-m", name, *map(str, arguments)],
      env=os.environ | {"PYTHONPATH": path} | environment,
      capture_output=True,
      text=True,
      cwd=cwd,
    )

  return run


@pytest.fixture(scope="session")
def free_port():
  """free_port() -> port; free, and the one below it was, a moment ago."""

  def free_port() -> int:
    while True:
      with socket.socket() as upper, socket.socket() as lower:
        upper.bind(("127.0.0.1", 0))
        number = upper.getsockname()[1]
        try:
          lower.bind(("127.0.0.1", number - 1))
        except OSError:
          continue
        return number

  return free_port


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
      features=(rng.normal(size=(5, 64)) / 8).astype(np.float32),
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


@pytest.fixture(scope="session")
def object_store(free_port):
  """(emulator of an object store on this machine, its address)."""
  from gcp_storage_emulator import server

  for _, handlers in server.HANDLERS:
    for method, handler in handlers.items():
      handlers[method] = _with_generations(handler)
  logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
  port = free_port()
  with server.create_server("127.0.0.1", port, in_memory=True) as emulator:
    yield emulator, f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(object_store, tmp_path, monkeypatch):
  """gs://bucket, empty, as are the local copies.

  For this process and those that it starts.
  """
  from fusar_jax.io.object_store import client

  emulator, address = object_store
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
    monkeypatch.setenv(name, address)
  client.cache_clear()
  emulator.wipe()
  client().create_bucket("bucket")
  yield "gs://bucket"
  client.cache_clear()


def _with_generations(handler):
  """Adds the generations of objects, which this emulator ignores.

  Clients write an object only if it still has the generation that they read.
  """

  def handle(request, response, storage, *rest):
    name = request.params.get("object_id") or request.query.get("name", [""])[0]
    if request.query.get("uploadType") == ["multipart"]:
      name = request.data["meta"].get("name", name)
    generation = "0"
    if name and (folder := request.params.get("bucket_name")):
      with contextlib.suppress(FileNotFoundError, LookupError, NotFound):
        generation = storage.get_file_obj(folder, name)["generation"]
    response["x-goog-generation"] = generation
    if request.query.get("ifGenerationMatch", [generation]) != [generation]:
      response.status = HTTPStatus.PRECONDITION_FAILED
    elif request.query.get("ifGenerationNotMatch") == [generation]:
      response.status = HTTPStatus.NOT_MODIFIED
    else:
      handler(request, response, storage, *rest)

  from gcp_storage_emulator.exceptions import NotFound

  return handle


@pytest.fixture(scope="session")
def upload_folder():
  """upload_folder(folder, url): copies all files of a folder to a bucket."""

  def upload_folder(folder: pathlib.Path, url: str) -> None:
    from fusar_jax.io import object_store
    from fusar_jax.io.list_files import files_below

    for path in files_below(folder):
      name = path.relative_to(folder).as_posix()
      object_store.upload(f"{url}/{name}", path.read_bytes())

  return upload_folder


@pytest.fixture
def read_flags(monkeypatch):
  """read_flags(arguments) -> (config, workdir), as `train` parses them."""

  def read(arguments: list[str]):
    monkeypatch.chdir(ROOT)
    if not any(word.startswith("--workdir") for word in arguments):
      arguments = [*arguments, "--workdir=runs/a"]
    args = train.parser().parse_args(arguments)
    return args.config, args.workdir

  return read


@pytest.fixture(scope="session")
def start_train():
  """start_train(name, workdir, **flags) -> Popen of `fusar_jax.train`.

  The name is that of a config, "stage1", or with its argument,
  "stage1:model=tiny".
  """
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


def _start_train(
  name: str, workdir: pathlib.Path | str, **flags
) -> subprocess.Popen:
  """Starts the command, on one simulated device."""
  values = _SHRUNK | flags
  name, colon, argument = name.partition(":")
  environment = dict(os.environ)
  environment.pop("XLA_FLAGS", None)
  environment.pop("NPROC", None)
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "fusar_jax.train",
      f"--config=configs/{name}.py{colon}{argument}",
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
