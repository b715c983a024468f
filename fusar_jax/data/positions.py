"""M-RoPE positions: time, row and column of each token.

Text tokens advance all three axes together. The tokens of an image share one
time position; their rows and columns count from it over the merged-token grid.
Text after an image continues after the largest position used.

Reference: `get_rope_index` of transformers' Qwen2.5-VL, for still images.

L text length.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from fusar_jax.model.config import SpecialTokens


def mrope_positions(
  input_ids: np.ndarray,
  grids: Sequence[tuple[int, int]],
  tokens: SpecialTokens,
  merge: int = 2,
) -> Int32[np.ndarray, "3 L"]:
  """Returns int32[3, L]: time, row, column of every token of one sample.

  Args:
    input_ids: int[L], unpadded; one image token per visual token.
    grids: (hp, wp) patches of each image, in order of appearance.
    tokens: special token ids.
    merge: side of a merged token, in patches.

  Raises:
    ValueError: image tokens that do not match the images.

  Example: two text tokens, an image of 2 x 3 merged tokens, one text token:
    time    0 1 | 2 2 2 2 2 2 | 5
    row     0 1 | 2 2 2 3 3 3 | 5
    column  0 1 | 2 3 4 2 3 4 | 5
  """
  input_ids = np.asarray(input_ids)
  sizes = [(hp // merge, wp // merge) for hp, wp in grids]
  check_image_tokens(input_ids, grids, tokens, merge)
  image_at = np.flatnonzero(input_ids == tokens.image)
  positions = np.empty((3, len(input_ids)), np.int32)
  done = following = taken = 0
  for h, w in sizes:
    start = int(image_at[taken])
    stop = start + h * w
    positions[:, done:start] = following + np.arange(start - done)
    origin = following + start - done
    positions[0, start:stop] = origin
    positions[1, start:stop] = origin + np.repeat(np.arange(h), w)
    positions[2, start:stop] = origin + np.tile(np.arange(w), h)
    following, done, taken = origin + max(h, w), stop, taken + h * w
  positions[:, done:] = following + np.arange(len(input_ids) - done)
  return positions


def check_image_tokens(
  input_ids: np.ndarray,
  grids: Sequence[tuple[int, int]],
  tokens: SpecialTokens,
  merge: int = 2,
) -> None:
  """Raises ValueError unless each image has a contiguous run of image tokens.

  As in the reference, two images may follow each other without a separator.
  """
  input_ids = np.asarray(input_ids)
  counts = [(hp // merge) * (wp // merge) for hp, wp in grids]
  is_image = input_ids == tokens.image
  found = int(is_image.sum())
  if found != sum(counts):
    sizes = ", ".join(
      f"{hp} x {wp} patches = {count}"
      for (hp, wp), count in zip(grids, counts, strict=True)
    )
    raise ValueError(
      f"{sum(counts)} visual tokens expected for {len(counts)} image(s)"
      f" ({sizes or 'none'}), but the prompt holds {found} image tokens (id"
      f" {tokens.image}). The image was resized after tokenising, or the text"
      " itself contains the image token."
    )
  image_at = np.flatnonzero(is_image)
  taken = 0
  for number, count in enumerate(counts):
    run = image_at[taken : taken + count]
    if run[-1] - run[0] != count - 1:
      raise ValueError(
        f"the {count} image tokens of image {number} are not in one run."
      )
    taken += count
