"""Fixtures: a small model, a small data set, and short runs of `train`."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fusar_jax import train
from fusar_jax.config import preset
from fusar_jax.model.config import FusarConfig

ROOT = pathlib.Path(__file__).resolve().parent.parent

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
