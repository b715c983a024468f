"""Visual tokens of a frozen vision tower, computed once per image.

Stages 1 and 2 train nothing below the TLM, and show every image for many
epochs. The tokens before the TLM are therefore kept on the host, and later
epochs neither run the tower nor transfer patches. The loss is the same.

An image is recognised by its patches, so rows that share one, or different
files with equal pixels, share its tokens.

B batch, C visual token width, I images in a sample, M merged visual tokens, P
patches.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fusar_jax.data.loader import Loader
from fusar_jax.data.triplets import Triplet
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.training import program, sharding
from fusar_jax.training.partition import Params
from fusar_jax.training.run_config import RunConfig

# Fields of a batch that only the vision tower reads.
_NO_TOWER_INPUTS = dict.fromkeys(
  ("patches", "patch_positions", "patch_mask", "window_index")
)


class VisualCache:
  """Puts batches on the devices, with the visual tokens of their images.

  Args:
    encode: (frozen, batch on the devices) -> [B, I, M, C], jitted.
    mesh: of the batches.
    merge: patches per side of a merged visual token.
  """

  def __init__(self, encode: Callable, mesh: Mesh, merge: int):
    self._encode, self._mesh, self._merge = encode, mesh, merge
    self._tokens: dict[bytes, np.ndarray] = {}
    self._pending: tuple[dict, jax.Array] | None = None

  def __call__(self, batch: Batch, frozen: Params) -> Batch:
    """Returns the batch on the devices, with `visual` in place of patches."""
    self._collect()
    images = _images(batch)
    if images and all(key in self._tokens for _, _, key, _ in images):
      visual = self._stacked(batch, images)
      batch = dataclasses.replace(batch, visual=visual, **_NO_TOWER_INPUTS)
      return sharding.put_batch(batch, self._mesh)
    on_devices = sharding.put_batch(batch, self._mesh)
    visual = self._encode(frozen, on_devices)
    new = {
      key: (row, image, patches // self._merge**2)
      for row, image, key, patches in images
      if key not in self._tokens
    }
    self._pending = new, visual
    return dataclasses.replace(on_devices, visual=visual, **_NO_TOWER_INPUTS)

  def programs(self) -> int:
    """Returns the number of shapes that the tower was compiled for."""
    return self._encode._cache_size()

  def _collect(self) -> None:
    """Stores what the step before computed; the devices are at that step."""
    if self._pending is None:
      return
    new, visual = self._pending
    self._pending = None
    host = np.asarray(visual)
    for key, (row, image, merged) in new.items():
      self._tokens[key] = host[row, image, :merged].copy()

  def _stacked(self, batch: Batch, images) -> np.ndarray:
    some = next(iter(self._tokens.values()))
    shape = (*batch.anchor_weights.shape[:3], some.shape[-1])
    visual = np.zeros(shape, some.dtype)
    for row, image, key, _ in images:
      tokens = self._tokens[key]
      visual[row, image, : len(tokens)] = tokens
    return visual


def make_inputs(
  config: RunConfig,
  model: FusarConfig,
  mesh: Mesh,
  trainable: Params,
  triplets: Sequence[Triplet],
  loader: Loader,
  steps: int,
) -> tuple[Callable[[Batch, Params], Batch], Callable[[], int]]:
  """Returns (batch, frozen) -> batch on the devices, and its compile counter.

  With a `VisualCache` if the tower is frozen, images are repeated unchanged,
  and the tokens of all images fit `config.data.visual_cache_gb`. On several
  hosts each would have to hold the tokens of all images: there is no cache.

  Args:
    trainable: parameters that training changes.
    triplets: rows of the run.
    loader: of these rows.
    steps: of the run.
  """
  limit = config.data.visual_cache_gb
  merge = model.vision.merge

  def put(batch: Batch, _: Params) -> Batch:
    return sharding.put_batch(batch, mesh)

  uncached = put, lambda: 0
  if (
    not limit
    or steps <= loader.steps_per_epoch
    or jax.process_count() > 1
    or config.data.chip_shift
    or "visual" in trainable
  ):
    return uncached
  dtype = jnp.dtype(config.dtype.compute)
  images = len({path for row in triplets for path in row.images})
  token = model.vision.out_width * dtype.itemsize
  size = images * (loader.most_patches // merge**2) * token / 1e9
  if size > limit:
    print(
      f"visual tokens: computed in every step; those of {images} images take"
      f" {size:.3g} GB, and config.data.visual_cache_gb is {limit:g}",
      flush=True,
    )
    return uncached
  print(
    f"visual tokens: computed once per image and kept on the host, {images}"
    f" images, {size:.3g} GB",
    flush=True,
  )
  options = program.step_options(config, model, mesh)
  network = FusarGPT(
    model, dtype=options.dtype, impl=options.impl, unroll=options.unroll
  )
  cache = VisualCache(make_encoder(network, mesh), mesh, merge)
  return cache, cache.programs


def make_encoder(network: FusarGPT, mesh: Mesh) -> Callable:
  """Returns jitted (frozen, batch) -> [B, I, M, C], before the TLM."""

  def encode(frozen: Params, batch: Batch) -> jax.Array:
    tokens = network.apply(
      {"params": {"visual": frozen["visual"]}},
      batch,
      modulate=False,
      method=FusarGPT.visual_tokens,
    )
    return cast(jax.Array, tokens)  # Flax also allows for returned variables.

  return jax.jit(
    encode,
    out_shardings=sharding.batch_sharding(mesh),
    compiler_options=program.compile_options(mesh),
  )


def _images(batch: Batch) -> list[tuple[int, int, bytes, int]]:
  """Returns (row, image, digest, number of patches) of each image."""
  found = []
  for row, image in np.argwhere(batch.patch_mask.any(-1)).tolist():
    patches = int(batch.patch_mask[row, image].sum())
    digest = hashlib.blake2b(digest_size=16)
    for part in (batch.patch_positions, batch.patches):
      digest.update(np.asarray(part[row, image, :patches]).tobytes())
    found.append((row, image, digest.digest(), patches))
  return found
