"""How far bfloat16 training is from float32, here and in the reference.

  python tests/parity/bf16.py --preset bench

Base weights are bfloat16 values, as published. Each side computes loss and
gradient of single samples, and greedy tokens, in float32 and in bfloat16 as it
trains: this package with bfloat16 activations and float32 trainable parameters,
the reference with a bfloat16 base under autocast, as in the official code. Each
side is compared with its own float32; those agree (`test_hf_roundtrip.py`).
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fusar_jax.experiments.benchmark import workload
from fusar_jax.experiments.benchmark.ours import make_batch
from fusar_jax.experiments.benchmark.reference import Reference
from fusar_jax.hf.load import load_adapted
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.model.compiling import compiler_options
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.training.partition import partition
from fusar_jax.training.step import StepOptions, make_gradients

_DTYPES = ("float32", "bfloat16")
# Stage 1 trains the TLM too, whose gradient passes through all of the decoder.
_STAGE = 1


@dataclasses.dataclass(frozen=True)
class Measured:
  """Results of one side in one dtype, for n samples.

  Attributes:
    losses: float64[n].
    gradients: float32[n, P], of the trainable parameters.
    tokens: greedy tokens of each sample.
  """

  losses: np.ndarray
  gradients: np.ndarray
  tokens: list[list[int]]


@dataclasses.dataclass(frozen=True)
class Distance:
  """Distance of bfloat16 from float32.

  Attributes:
    loss: root mean square of the relative differences of losses.
    gradient: root mean square of |difference| / |gradient|.
    tokens: equal greedy tokens before the first difference, mean per sample.
  """

  loss: float
  gradient: float
  tokens: float


def compare(
  preset: str, shape: workload.Shape, samples: int, tokens: int
) -> tuple[Distance, Distance]:
  """Returns the distances (ours, reference) over the first `samples`."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name) / "bfloat16"
    workload.write(folder, preset, shape, dtype="bfloat16")
    # The same weights, to be computed with in float32.
    exact = Path(name) / "float32"
    shutil.copytree(folder, exact)
    settings = json.loads((exact / "workload.json").read_text())
    settings["dtype"] = "float32"
    (exact / "workload.json").write_text(json.dumps(settings))
    folders = dict(zip(_DTYPES, (exact, folder), strict=True))
    sides = [
      {dtype: measure(folders[dtype], samples, tokens) for dtype in _DTYPES}
      for measure in (_ours, _reference)
    ]
  for measured in zip(*(side["float32"].losses for side in sides), strict=True):
    np.testing.assert_allclose(*measured, rtol=1e-4)
  ours, reference = (_distance(*(side[d] for d in _DTYPES)) for side in sides)
  return ours, reference


def _distance(exact: Measured, rounded: Measured) -> Distance:
  def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))

  differences = np.linalg.norm(rounded.gradients - exact.gradients, axis=1)
  return Distance(
    rms(rounded.losses / exact.losses - 1),
    rms(differences / np.linalg.norm(exact.gradients, axis=1)),
    float(np.mean([_equal(*t) for t in zip(exact.tokens, rounded.tokens)])),
  )


def _equal(first: list[int], second: list[int]) -> int:
  same = [a == b for a, b in zip(first, second, strict=True)]
  return same.index(False) if False in same else len(same)


def _ours(folder: Path, count: int, tokens: int) -> Measured:
  _, shape, samples = workload.read(folder)
  config, params = load_adapted(folder / "base", folder / "adapter")
  dtype = jnp.dtype(workload.read_dtype(folder))
  trainable, frozen = partition(params, workload.TRAINABLE[_STAGE])
  trainable = jax.tree.map(lambda leaf: jnp.array(leaf, jnp.float32), trainable)
  run = jax.jit(
    make_gradients(config, StepOptions(dtype=dtype, dropout=False)),
    compiler_options=compiler_options(),
  )
  losses, gradients = [], []
  for sample in samples[:count]:
    batch = make_batch(config, [sample], shape.answer)
    loss, gradient = run(trainable, frozen, batch, jax.random.key(0))
    losses.append(float(loss))
    leaves = [np.asarray(g).ravel() for g in jax.tree.leaves(gradient)]
    gradients.append(np.concatenate(leaves))
  answers = generate(
    FusarGPT(config, dtype=dtype),
    params,
    make_batch(config, samples[:count], shape.answer, answers=False),
    Decoding(tokens),
  )
  return Measured(np.array(losses), np.stack(gradients), answers)


def _reference(folder: Path, count: int, tokens: int) -> Measured:
  side = Reference(folder)
  trained = side.trained(_STAGE)
  _, _, samples = workload.read(folder)
  losses, gradients = [], []
  for sample in samples[:count]:
    loss = side.loss([sample])
    leaves = torch.autograd.grad(loss, trained)
    losses.append(loss.item())
    gradients.append(np.concatenate([g.float().ravel() for g in leaves]))
  answers = side.decode(count, tokens)
  return Measured(np.array(losses), np.stack(gradients), answers)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--preset", default="tiny", help="tiny or bench")
  parser.add_argument("--samples", type=int, default=8, help="at most 16")
  parser.add_argument("--tokens", type=int, default=32, help="per answer")
  args = parser.parse_args()
  shape = SHAPES[args.preset]
  sides = compare(args.preset, shape, args.samples, args.tokens)
  table = Table("", "loss", "gradient", f"equal tokens of {args.tokens}")
  for name, d in zip(("ours", "reference"), sides, strict=True):
    row = (f"{d.loss:.2e}", f"{d.gradient:.4f}", f"{d.tokens:.1f}")
    table.add_row(name, *row)
  Console().print(table)


SHAPES = {
  "tiny": workload.Shape(length=80, answer=30, side=3, rank=4),
  "bench": workload.Shape(),
}

if __name__ == "__main__":
  main()
