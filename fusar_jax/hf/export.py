"""Exports a model with merged LoRA to a Hugging Face folder.

transformers loads the folder as a plain Qwen2.5-VL, or with `trust_remote_code`
as the model with TLM, which has separate files; `load_base` reads both. A
model without TLM has `image_text_config.json` instead.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.hf import image_text_file, mapping, tlm_file
from fusar_jax.hf.config_json import write_config
from fusar_jax.hf.coverage import Differences, shapes
from fusar_jax.hf.folders import write_record
from fusar_jax.hf.model_card import UNKNOWN, Publication, write_model_card
from fusar_jax.hf.tokenizer_files import write_tokenizer
from fusar_jax.hf.weights import Lazy, plan_shards, save_shards
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.lora import merged_kernel
from fusar_jax.model.paths import flatten


@dataclasses.dataclass(frozen=True)
class Export:
  """Summary of an export.

  Attributes:
    folder: folder of the model.
    files: names of its safetensors files.
    parameters: number of parameters in them.
    rounding: largest difference between a float32 merged kernel and its stored
      value, relative to the largest magnitude of that kernel; 0 in float32. The
      merged model can differ from the adapter model by this much per weight.
  """

  folder: Path
  files: tuple[str, ...]
  parameters: int
  rounding: float


def export_merged(
  folder: str | Path,
  config: FusarConfig,
  params: dict,
  *,
  dtype=None,
  max_shard_bytes: int = 4_000_000_000,
  tokenizer: str | Path | None = None,
  generation: Mapping[str, Any] | None = None,
  overwrite: bool = False,
  about: Publication = UNKNOWN,
) -> Export:
  """Writes the model with merged LoRA in the layout of the hub's files.

  Kernels are merged in float32, one layer at a time, and rounded once.

  Args:
    folder: new folder; written to a temporary sibling and renamed when
      complete.
    config: config of the model, with its LoRA and TLM.
    params: nested dict, on host or devices.
    dtype: dtype of the weights; None: each parameter's own.
    max_shard_bytes: maximum file size; a larger model is written in shards.
    tokenizer: folder of the tokenizer to export, as `tokenizer.json`.
    generation: content of the base's generation_config.json, or None.
    overwrite: replaces the contents of the folder.
    about: what the model card says of the model's origin.

  Raises:
    ValueError: parameters that do not match the config (listed), or a config
      that transformers cannot express.
    FileExistsError: the folder is not empty.
  """
  flat = flatten(params)
  check_params(config, flat)
  writer = _Writer(config, flat, dtype)
  shards = plan_shards(
    mapping.tensors(config), lambda t: writer.dtype(t.path), max_shard_bytes
  )
  stored = str(writer.dtype("model/embed_tokens/embedding"))
  with new_folder(folder, overwrite=overwrite) as made:
    write_config(made, config, stored, generation)
    save_shards(made, shards.items(), writer.lazy)
    if config.tlm is not None:
      tlm_file.write_tlm(made, config, params["tlm"])
    else:
      image_text_file.write_image_text(made, config)
    write_tokenizer(made, tokenizer)
    write_model_card(made, config, about)
    write_record(made, about.record)
  count = sum(int(np.prod(t.shape)) for t in mapping.tensors(config))
  return Export(Path(folder), tuple(shards), count, writer.rounding)


def check_params(config: FusarConfig, flat: dict) -> None:
  """Raises ValueError unless the leaves are exactly those of the config."""
  expected = mapping.leaf_shapes(config)
  expected |= mapping.leaf_shapes(config, adapter=True)
  if config.tlm is not None:
    for row in tlm_file.tensors(config.tlm, config.vision.out_width):
      expected[row.path] = mapping.transformed_shape(row)
  expected = {path: list(shape) for path, shape in expected.items()}
  differences = Differences.between(expected, shapes(flat))
  if differences:
    raise ValueError(
      f"parameters do not fit the config ({len(differences)} leaves):\n"
      f"{differences}"
    )


class _Writer:
  """Produces published arrays one by one; keeps one leaf on the host."""

  def __init__(self, config: FusarConfig, flat: dict, dtype):
    self._flat, self._scale = flat, config.lora.scale
    self._dtype = None if dtype is None else np.dtype(dtype)
    self._leaves: dict[str, np.ndarray] = {}
    self.rounding = 0.0

  def dtype(self, path: str) -> np.dtype:
    return self._dtype or np.dtype(self._flat[path].dtype)

  def lazy(self, tensor: mapping.Tensor) -> Lazy:
    dtype = self.dtype(tensor.path)
    return Lazy(tensor.shape, dtype, functools.partial(self.array, tensor))

  def array(self, tensor: mapping.Tensor) -> np.ndarray:
    path = tensor.path
    module = path.rpartition("/")[0]
    paths = [p for p in _with_adapter(path, module) if p in self._flat]
    if path not in self._leaves:
      self._leaves = {p: np.asarray(self._flat[p]) for p in paths}
    values = [self._leaves[p] for p in paths]
    if tensor.layer is not None:
      values = [value[tensor.layer] for value in values]
    if len(values) == 1:
      stored = values[0].astype(self.dtype(path), copy=False)
    else:
      stored = self._merge(path, *values)
    return mapping.to_published(stored, tensor)

  def _merge(self, path, kernel, lora_a, lora_b) -> np.ndarray:
    merged = np.asarray(merged_kernel(kernel, lora_a, lora_b, self._scale))
    stored = merged.astype(self.dtype(path))
    off = np.max(np.abs(merged - stored.astype(np.float32)))
    self.rounding = max(
      self.rounding, float(off / max(np.max(np.abs(merged)), 1e-30))
    )
    return stored


def _with_adapter(path: str, module: str) -> tuple[str, ...]:
  if not path.endswith("/kernel"):
    return (path,)
  return path, f"{module}/lora_a", f"{module}/lora_b"
