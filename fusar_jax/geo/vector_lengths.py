"""Whether values are AlphaEarth vectors: they have length 1.

Wrong, linear de-quantisations are published, q / 127 and q / 128; only
sign(q) (q / 127.5)^2 gives vectors of length 1 (fusar_gpt.md, section 6).
"""

import numpy as np

# The median length; real ones are 0.99 to 1.01, and their means over resampled
# pixels somewhat shorter.
_LENGTHS = 0.75, 1.3
# Fewer may all be resampled pixels on edges of land covers, whose means are
# short: that of two orthogonal vectors has length 0.7.
_ENOUGH = 16
_LINEAR = 127, 128


def check_lengths(shown: str, vectors: np.ndarray, stored: np.ndarray) -> None:
  """Checks the median length of vectors.

  Args:
    shown: name of the file, for the message.
    vectors: float32[64, n].
    stored: int8, uint16 or float [64, n], as in the file.

  Raises:
    ValueError: the median is not about 1; the message gives the likely cause.
      Fewer than 16 vectors may be short.
  """
  if not vectors.shape[1]:
    return
  median = float(np.median(np.linalg.norm(vectors, axis=0)))
  few = vectors.shape[1] < _ENOUGH
  if (few or _LENGTHS[0] < median) and median < _LENGTHS[1]:
    return
  raise ValueError(
    f"{shown}: AlphaEarth vectors have length 1, these {median:.2f} (median of"
    f" {vectors.shape[1]}): {_cause(stored, median)}. Right is"
    " v = sign(q) (q / 127.5)^2 of the published int8 q."
  )


def _cause(stored, median):
  if stored.dtype == np.int8:
    if median > 1:
      return "other int8 values than the published ones"
    return (
      "de-quantised values may have been stored as int8 by a linear scale;"
      " store q = round(sign(v) sqrt(|v|) 127.5), or v itself as float32"
    )
  for scale in _LINEAR if stored.dtype.kind == "f" else ():
    q = stored * scale
    if np.abs(q - np.rint(q)).max() < 1e-3:
      return (
        f"int8 values divided by {scale}, a linear scale that some guides"
        f" state; multiply by {scale}, round, and store int8"
      )
  return "neither the published int8 nor their de-quantised values"
