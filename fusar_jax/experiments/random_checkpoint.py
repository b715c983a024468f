"""Writes a Qwen2.5-VL checkpoint of random weights, of any size.

For tests of size: the real weights are large downloads, and a step, a load or
an export takes the same time and memory with any weights. Tensors are drawn one
by one, so that memory contains one of them.
"""

import functools
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
from rich.progress import track

from fusar_jax.hf import mapping
from fusar_jax.hf.config_json import write_config
from fusar_jax.hf.weights import Lazy, plan_shards, save_shards
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.model.config import FusarConfig

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_SHARD = 2_000_000_000


def write_random_checkpoint(
  folder: str | Path, config: FusarConfig, seed: int = 0
) -> None:
  """Writes bfloat16 weights in files of 2 GB, as the hub has them.

  Kernels have variance 1 / fan-in, embeddings and biases a standard deviation
  of 0.02, norms are ones.

  Args:
    folder: new folder; complete once it exists.
    config: shapes; LoRA and TLM are not written.
    seed: of the weights.

  Raises:
    FileExistsError: the folder is not empty.
  """
  shards = plan_shards(mapping.tensors(config), lambda _: _BFLOAT16, _SHARD)
  with new_folder(folder) as made:
    write_config(made, config, "bfloat16")
    save_shards(
      made,
      track(shards.items(), f"writing {folder}"),
      lambda t: Lazy(t.shape, _BFLOAT16, functools.partial(_draw, t, seed)),
    )


def _draw(tensor: mapping.Tensor, seed: int) -> np.ndarray:
  if "norm" in tensor.name or tensor.name.endswith("ln_q.weight"):
    return np.ones(tensor.shape, _BFLOAT16)
  rng = np.random.default_rng((seed, zlib.crc32(tensor.name.encode())))
  values = rng.standard_normal(tensor.shape, np.float32)
  deviation = 0.02
  if tensor.transform != mapping.SAME:
    deviation = np.prod(tensor.shape[1:]) ** -0.5
  values *= deviation
  return values.astype(_BFLOAT16)
