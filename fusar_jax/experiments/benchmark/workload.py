"""Workload of both sides: weights, images, anchors and tokens from one seed.

The package's export writes the weights, and the reference loads them like any
published checkpoint.

C visual token width, E = 64 embedding bands, L text length, S anchors.
"""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from fusar_jax.config import preset
from fusar_jax.experiments.benchmark.measurements import SAMPLES
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.peft import write_adapter
from fusar_jax.model.config import FusarConfig, LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training.partition import partition

ADAPTER_RULES = [(r"tlm/.*|.*/lora_[ab]", True), (".*", False)]
TRAINABLE = {
  1: ADAPTER_RULES,
  2: [(r".*/lora_[ab]", True), (".*", False)],
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of one sample.

  Attributes:
    length: L, tokens of a sample with its answer.
    answer: supervised tokens at its end.
    side: S is side * side anchors on a regular grid.
    rank: LoRA rank.
  """

  length: int = 509
  answer: int = 60
  side: int = 10
  rank: int = 8


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sample: int32[L] ids, uint8[h, w, 3] image, float32 anchors."""

  input_ids: np.ndarray
  image: np.ndarray
  features: np.ndarray
  positions: np.ndarray


def bench_config(name: str, shape: Shape) -> FusarConfig:
  """Returns the preset with LoRA but no dropout: losses must agree."""
  return dataclasses.replace(preset(name), lora=LoRAConfig(rank=shape.rank))


def write(
  folder: Path,
  name: str,
  shape: Shape,
  dtype: str = "float32",
  seed: int = 0,
) -> None:
  """Writes `base/`, `adapter/` and `workload.json` for both sides.

  Args:
    dtype: of the base's weights, and of the arithmetic.
  """
  config = bench_config(name, shape)
  flat = flatten(init_params(config, jax.random.key(seed)))
  rng = np.random.default_rng(seed)
  for path in flat:
    if path.endswith("lora_b"):  # With zeros lora_a has no gradient.
      flat[path] = rng.normal(0, 0.02, flat[path].shape).astype(np.float32)
  params = unflatten(flat)
  _, base = partition(params, ADAPTER_RULES)
  plain = dataclasses.replace(config, lora=LoRAConfig(), tlm=None)
  export_merged(folder / "base", plain, base, dtype=dtype)
  write_adapter(folder / "adapter", config, params, base=str(folder / "base"))
  for file in image_files(folder):
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(_scene(rng)).save(file)
  settings = {
    "preset": name,
    "seed": seed,
    "dtype": dtype,
    "shape": dataclasses.asdict(shape),
  }
  (folder / "workload.json").write_text(json.dumps(settings))


def answered(sample: Sample, shape: Shape, answer: list[int]) -> Sample:
  """Returns the sample's prompt, followed by another answer."""
  prompt = sample.input_ids[: shape.length - shape.answer]
  ids = np.concatenate([prompt, answer]).astype(np.int32)
  return dataclasses.replace(sample, input_ids=ids)


def image_files(folder: Path) -> list[Path]:
  """Returns the files of the images to prepare, one per sample."""
  return [folder / "images" / f"{k}.png" for k in range(SAMPLES)]


def _scene(rng) -> np.ndarray:
  """uint8[700, 900, 3]: speckle over patches of different backscatter."""
  level = np.kron(rng.uniform(20, 90, (7, 9)), np.ones((100, 100)))
  gray = np.clip(level * rng.gamma(4, 0.25, level.shape), 0, 255)
  return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)


def read(folder: Path) -> tuple[FusarConfig, Shape, list[Sample]]:
  """Returns what `write` wrote: (config, shape, samples)."""
  settings = json.loads((folder / "workload.json").read_text())
  shape = Shape(**settings["shape"])
  config = bench_config(settings["preset"], shape)
  return config, shape, samples(config, shape, SAMPLES, settings["seed"])


def read_dtype(folder: Path) -> str:
  """Returns the dtype of the arithmetic."""
  return json.loads((folder / "workload.json").read_text())["dtype"]


def samples(
  config: FusarConfig, shape: Shape, count: int, seed: int = 0
) -> list[Sample]:
  """Returns `count` samples of random images, text tokens and anchors.

  Raises:
    ValueError: the length is too short for an image and an answer.
  """
  rng = np.random.default_rng(seed + 1)
  return [_sample(config, shape, rng) for _ in range(count)]


def _sample(config: FusarConfig, shape: Shape, rng) -> Sample:
  if config.image_size is None:
    raise ValueError("the benchmark needs a model with a fixed image size.")
  height, width = config.image_size
  cells = height * width // config.vision.cell**2
  t = config.tokens
  words = shape.length - cells - 2
  if words <= shape.answer:
    raise ValueError(
      f"{shape.length} tokens are too few for {cells} visual tokens and an"
      f" answer of {shape.answer}."
    )
  # Special ids are above all text ids (Qwen) or below them (SentencePiece).
  special = max(dataclasses.astuple(t))
  low = special + 1 if special < 1000 else 0
  text = rng.integers(low, min(low + 1000, config.decoder.vocab), words)
  head = words - shape.answer - 15 if words > shape.answer + 15 else 1
  ids = np.concatenate(
    [
      text[:head],
      [t.vision_start],
      np.full(cells, t.image),
      [t.vision_end],
      text[head:],
    ]
  )
  features = rng.normal(size=(shape.side**2, 64))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  axis = (np.arange(shape.side) + 0.5) / shape.side
  positions = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
  return Sample(
    input_ids=ids.astype(np.int32),
    image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
    features=features.astype(np.float32),
    positions=positions.reshape(-1, 2).astype(np.float32),
  )
