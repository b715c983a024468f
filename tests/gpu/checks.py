"""Checks of run.py, each a process: `checks.py attention|training FILE`.

Raises AssertionError beyond a tolerance; else writes what was measured.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
_STEPS = 20
# bfloat16 has 8 bits; sums of many rounded terms lose one or two more.
_BFLOAT16 = 0.02
_LOSS = 1e-3


def attention() -> dict[str, float]:
  """Returns implementation -> largest difference, relative to the largest."""
  import jax
  import jax.numpy as jnp

  from fusar_jax.model.attention import attend
  from fusar_jax.model.decoder import causal_mask

  platform, cpu = jax.default_backend(), jax.devices("cpu")[0]
  rng = np.random.default_rng(0)
  length = 509
  shapes = [(2, length, heads, 128) for heads in (16, 2, 2)]
  inputs = [jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in shapes]
  # One row of two packed samples, one with padding.
  ids = np.array([[1] * 200 + [2] * 309, [1] * 400 + [0] * 109], np.int32)
  real = (ids > 0)[..., None, None]

  def loss(impl, mask, *inputs):
    mixed = attend(*inputs, mask, impl=impl).astype(jnp.float32)
    return jnp.sum(jnp.where(real, jnp.sin(mixed), 0)), mixed * real

  def run(impl, device, dtype):
    put = [jax.device_put(x.astype(dtype), device) for x in inputs]
    mask = jax.device_put(causal_mask(jnp.asarray(ids)), device)
    grad = jax.jit(jax.grad(loss, (2, 3, 4), has_aux=True), static_argnums=0)
    grads, mixed = grad(impl, mask, *put)
    return [np.asarray(x, np.float32) for x in (mixed, *grads)]

  expected = run("xla", cpu, jnp.float32)
  found = {}
  for impl in ("xla", "blocked" if platform == "cpu" else "cudnn"):
    values = run(impl, jax.devices()[0], jnp.bfloat16)
    found[impl] = max(
      float(np.abs(a - b).max() / np.abs(b).max())
      for a, b in zip(values, expected, strict=True)
    )
    assert found[impl] < _BFLOAT16, found
  return found


def training() -> dict[str, float]:
  """Returns the first and last loss, and the largest relative difference."""
  accelerator = os.environ["JAX_PLATFORMS"].split(",")[0]
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    _command(
      "simulate", "--out", folder / "data", "--scenes", 8, platform="cpu"
    )
    losses = [
      _losses(folder, folder / run, platform)
      for run, platform in (("one", accelerator), ("cpu", "cpu"))
    ]
  one, cpu = map(np.array, losses)
  difference = float(np.abs(one / cpu - 1).max())
  assert difference < _LOSS, (one, cpu)
  assert cpu[-1] < cpu[0]
  return {"first": cpu[0], "last": cpu[-1], "difference": difference}


def _losses(folder: Path, workdir: Path, platform: str) -> list[float]:
  _command(
    "train",
    *("--config", "configs/stage1.py:model=tiny", "--workdir", workdir),
    f"--config.data.train={folder / 'data' / 'captions.jsonl'}",
    f"--config.steps={_STEPS}",
    "--config.log_every_steps=1",
    "--config.batch_size=8",
    platform=platform,
  )
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def _command(name: str, *arguments, platform: str) -> None:
  subprocess.run(
    [sys.executable, "-m", f"fusar_jax.{name}", *map(str, arguments)],
    check=True,
    cwd=ROOT,
    env=os.environ
    | {"JAX_PLATFORMS": platform, "JAX_DEFAULT_MATMUL_PRECISION": "highest"},
  )


if __name__ == "__main__":
  check = {"attention": attention, "training": training}[sys.argv[1]]
  Path(sys.argv[2]).write_text(json.dumps(check()))
