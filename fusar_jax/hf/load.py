"""Loads Hugging Face Qwen2.5-VL folders as (config, sharded parameters).

Each leaf is read and transferred to its devices before the next one, so host
memory contains one leaf, never a second copy of the model; a CPU's devices take
the memory of the leaf itself. With shardings, a host reads only the slices of
its devices from the file.
"""

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.hf import image_text_file, mapping, tlm_file
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.copying import aligned, copy
from fusar_jax.hf.coverage import Found, match
from fusar_jax.hf.folders import resolve
from fusar_jax.hf.mapping import Tensor
from fusar_jax.hf.peft import attach, read_adapter
from fusar_jax.hf.weights import Weights, weight_files
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.paths import flatten, unflatten

Sharding = jax.sharding.Sharding
ShardingRule = Sharding | Callable[[str, tuple[int, ...]], Sharding] | None

_HEAD = "lm_head.weight"
_EMBEDDING = "model.language_model.embed_tokens.weight"
_ROWS = 4096  # vocabulary rows per comparison
_THREADS = min(8, os.cpu_count() or 1)


def load_adapted(
  folder: str | os.PathLike,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  *,
  use_tlm: bool = True,
  image_size: int | None = None,
  sharding: ShardingRule = None,
) -> tuple[FusarConfig, dict]:
  """Loads a base model and, optionally, an adapter.

  Args:
    folder: see `load_base`.
    adapter, legacy_sigma: see `read_adapter`; None: the base alone.
    use_tlm, image_size: see `restrict`.
    sharding: of the base's weights, see `load_base`.

  Raises:
    FileNotFoundError, ValueError: as `load_base`, `read_adapter`, `restrict`.
  """
  if adapter is None and legacy_sigma is not None:
    raise ValueError("legacy_sigma belongs to an adapter; none is given.")
  config, params = load_base(folder, sharding=sharding)
  if adapter is not None:
    config, leaves = read_adapter(
      adapter, config, legacy_sigma, use_tlm=use_tlm
    )
    params = attach(config, params, leaves)
  return restrict(config, params, use_tlm=use_tlm, image_size=image_size)


def restrict(
  config: FusarConfig,
  params: dict,
  *,
  use_tlm: bool = True,
  image_size: int | None = None,
) -> tuple[FusarConfig, dict]:
  """Returns the model without its TLM, or with a fixed image size.

  Args:
    config, params: config and parameters of the model.
    use_tlm: False removes the TLM; the model then takes no anchors.
    image_size: side in pixels, a multiple of 28, of the square to which every
      image is resized, for a model whose files record no size (a plain
      Qwen2.5-VL); None: the recorded size.

  Raises:
    ValueError: the files record another size, or it is not a multiple of 28.
  """
  if not use_tlm:
    config = dataclasses.replace(config, tlm=None)
    params = {name: part for name, part in params.items() if name != "tlm"}
  if image_size is not None:
    config = image_text_file.at_image_size(
      config, (image_size, image_size), "image size"
    )
  return config, params


def load_base(
  folder: str | os.PathLike, dtype=None, sharding: ShardingRule = None
) -> tuple[FusarConfig, dict]:
  """Loads a Qwen2.5-VL model from a Hugging Face folder or a hub id.

  The TLM of a folder written by `export_merged` is returned as `config.tlm` and
  `params["tlm"]`. For a plain Qwen2.5-VL, `config.tlm` is None. If
  `image_text_config.json` exists, the model gets its image size.

  Args:
    folder: folder with config.json and safetensors, in any published layout.
    dtype: dtype of all parameters; None: the dtype of the file.
    sharding: one sharding for all leaves, or a function of (path, shape); None:
      the default device.

  Returns:
    The config, and a nested dict of arrays (see `mapping`).

  Raises:
    FileNotFoundError: no such folder, config or weights.
    ValueError: the tensors do not match config.json (all differences are
      listed), or a file is truncated or malformed.
  """
  folder = resolve(folder)
  config = read_config(folder)
  optional = {}
  if config.decoder.tie_word_embeddings:
    # Some writers also store the head of a model with tied embeddings.
    optional[_HEAD] = (config.decoder.vocab, config.decoder.hidden_size)
  weights = Weights(weight_files(folder))
  found = match(
    mapping.tensors(config),
    weights.found(),
    what=str(folder),
    fix="config.json describes another model than the weights, or the keys"
    " are of a layout that hf/mapping.py does not know.",
    optional=optional,
  )
  if _HEAD in optional and _HEAD in found:
    _check_tied_head(weights, found)
  leaves = collections.defaultdict(list)
  for tensor in mapping.tensors(config):
    leaves[tensor.path].append((tensor, found[tensor.name]))
  shapes = mapping.leaf_shapes(config)
  params = {}
  for path, parts in leaves.items():
    leaf = _Leaf(weights, parts, shapes[path], dtype)
    params[path] = _put(path, leaf.shape, leaf.read, sharding)
  params = unflatten(params)
  if tlm_file.has_tlm(folder):
    config, tlm = tlm_file.read_tlm(folder, config)
    params["tlm"] = _put_tree("tlm", tlm, dtype, sharding)
  elif size := image_text_file.read_image_text(folder):
    config = image_text_file.at_image_size(
      config, size, str(folder / image_text_file.FILE)
    )
  return config, params


def _check_tied_head(weights: Weights, found: dict[str, Found]) -> None:
  head, embedding = found[_HEAD], found[_EMBEDDING]
  for start in range(0, head.shape[0], _ROWS):
    rows = (slice(start, min(start + _ROWS, head.shape[0])),)
    same = np.array_equal(
      weights.read(head, rows), weights.read(embedding, rows)
    )
    if not same:
      raise ValueError(
        f"{head.file}: config.json ties the head to the embedding, but"
        f" {head.name} differs from {embedding.name}. Set tie_word_embeddings"
        " to false in config.json if the head was trained."
      )


@dataclasses.dataclass(frozen=True)
class _Leaf:
  """The file tensors of one parameter leaf: one tensor, or one per layer."""

  weights: Weights
  parts: list[tuple[Tensor, Found]]
  shape: tuple[int, ...]
  requested: jnp.dtype | None

  @property
  def dtype(self) -> np.dtype:
    if self.requested is not None:
      return np.dtype(self.requested)
    kinds = {self.weights.dtype(item) for _, item in self.parts}
    return np.dtype(jnp.result_type(*kinds))

  def read(self, index: tuple[slice, ...]) -> np.ndarray:
    """Returns the slice `index` of the leaf."""
    bounds = [s.indices(n)[:2] for s, n in zip(index, self.shape, strict=True)]
    cut = [slice(*b) for b in bounds]
    for _, item in self.parts:
      self.weights.dtype(item)  # raises ValueError for unsupported dtypes
    out = aligned([stop - start for start, stop in bounds], self.dtype)
    if self.parts[0][0].layer is None:
      copy(self._part(*self.parts[0], cut), out)
      return out

    def read_layer(row: int) -> None:
      part = self._part(*self.parts[row], cut[1:])
      copy(part, out[row - cut[0].start])

    # A list, to raise what a thread raised.
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
      list(threads.map(read_layer, range(cut[0].start, cut[0].stop)))
    return out

  def _part(self, tensor: Tensor, item: Found, cut: list[slice]) -> np.ndarray:
    if tensor.transform == mapping.PATCHES:  # too small to slice in the file
      full = mapping.from_published(self.weights.read(item), tensor.transform)
      return full[tuple(cut)]
    published = cut[::-1] if tensor.transform == mapping.TRANSPOSE else cut
    part = self.weights.read(item, tuple(published))
    return mapping.from_published(part, tensor.transform)


def _put(path: str, shape: tuple[int, ...], read, sharding: ShardingRule):
  if sharding is None:
    return jax.device_put(read((slice(None),) * len(shape)))
  if not isinstance(sharding, Sharding):
    sharding = sharding(path, shape)
  return jax.make_array_from_callback(shape, sharding, read)


def _put_tree(prefix: str, tree: dict, dtype, sharding: ShardingRule) -> dict:
  placed = {}
  for path, array in flatten(tree, f"{prefix}/").items():
    array = array.astype(dtype or array.dtype)
    placed[path] = _put(path, array.shape, array.__getitem__, sharding)
  return unflatten(placed)[prefix]
