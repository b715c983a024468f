"""95 % confidence intervals of scores.

Shares use Wilson's interval, or, if rows belong to groups of near duplicates, a
bootstrap over groups. Ratios of sums over images (F1, precision, recall,
means) use a percentile bootstrap over images.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

# The published training seed; fixed, so intervals are reproducible.
BOOTSTRAP_SEED = 42
RESAMPLES = 1000
_Z95 = 1.959963984540054
# Bootstrap weights in memory at once: 80 MB.
_CELLS_AT_ONCE = 10_000_000
# Drawing the count of one distinct row costs as much as this many images.
_DRAW_COST = 6


def share(hits) -> float:
  """Returns the mean of bool[n] as a float; 0 for no rows."""
  hits = np.asarray(hits)
  return float(hits.mean()) if hits.size else 0.0


def ratio(part, whole) -> np.ndarray:
  """Returns part / whole; 0 if whole is 0."""
  part, whole = np.broadcast_arrays(np.asarray(part, float), whole)
  return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def ratio_of_sums(sums) -> np.ndarray:
  """Returns the `ratio` [...] of sums [..., 2]: numerator and denominator."""
  return ratio(sums[..., 0], sums[..., 1])


def wilson(k: float, n: int) -> list[float]:
  """Returns [low, high], Wilson's 95 % interval of k successes in n trials.

  Reference: E. B. Wilson, J. Amer. Statist. Assoc. 22 (1927), without
  continuity correction. For n = 0 the interval is [0, 1].

  Example: 41 of 99 images.
    >>> [round(v, 3) for v in wilson(41, 99)]
    [0.322, 0.513]
  """
  if not 0 <= k <= n:
    raise ValueError(f"expected 0 <= k <= n, got k = {k}, n = {n}.")
  if n == 0:
    return [0.0, 1.0]
  p, z2 = k / n, _Z95**2
  centre = (p + z2 / (2 * n)) / (1 + z2 / n)
  half = _Z95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
  return [float(max(centre - half, 0)), float(min(centre + half, 1))]


def of_share(
  hits,
  clusters: np.ndarray | None = None,
  chosen: slice | np.ndarray = slice(None),
) -> list[float]:
  """Returns [low, high], the 95 % interval of a share of rows.

  Wilson's. If clusters are given, their rows are resampled together; a
  bootstrap of rows that all agree has no width, so Wilson's interval with one
  trial per cluster replaces it.

  Args:
    hits: bool[n].
    clusters: int[n], equal for rows that are not independent; None: all are.
    chosen: index of the rows that count.

  Example: two pairs of near duplicates are two trials, not four.
    >>> [round(v, 3) for v in of_share([1] * 4, np.array([0, 0, 1, 1]))]
    [0.342, 1.0]
    >>> of_share([1] * 4, np.array([0, 0, 1, 1])) == wilson(2, 2)
    True
  """
  hits = np.asarray(hits, bool)[chosen]
  if clusters is None:
    return wilson(hits.sum(), len(hits))
  sums = by_image(
    clusters[chosen].tolist(), np.stack([hits, np.ones(len(hits))], 1)
  )
  if hits.all() or not hits.any():
    return wilson(len(sums) * bool(hits.any()), len(sums))
  return bootstrap(sums, ratio_of_sums)


def bootstrap(
  counts,
  statistic: Callable[[np.ndarray], np.ndarray],
  *,
  resamples: int = RESAMPLES,
  seed: int = BOOTSTRAP_SEED,
) -> list[float]:
  """Returns [low, high], the 95 % percentile bootstrap over images.

  Args:
    counts: [n, c], one row per image.
    statistic: maps sums [resamples, c] over the images of each resample to
      [resamples].
    resamples, seed: see `resample`.

  Raises:
    ValueError: no images.
  """
  values = statistic(resample(counts, resamples=resamples, seed=seed))
  return [float(v) for v in np.percentile(values, [2.5, 97.5])]


def bootstrap_all(
  counts, statistics: Mapping[str, Callable[[np.ndarray], np.ndarray]]
) -> dict[str, list[float]]:
  """Returns the `bootstrap` of each statistic from shared resamples."""
  sums = resample(counts)
  return {
    name: [float(v) for v in np.percentile(statistic(sums), [2.5, 97.5])]
    for name, statistic in statistics.items()
  }


def by_image(images: Sequence[Hashable], values) -> np.ndarray:
  """Returns float64[images, c], sums of the rows [n, c] of each image.

  Rows of one image are not independent, so they are resampled together.

  Args:
    images: the image of each row.
    values: [n, c].

  Example:
    >>> by_image(["a", "b", "a"], [[1, 1], [2, 1], [4, 1]]).tolist()
    [[5.0, 2.0], [2.0, 1.0]]
  """
  values = np.asarray(values, np.float64)
  places = {image: i for i, image in enumerate(dict.fromkeys(images))}
  sums = np.zeros((len(places), values.shape[1]))
  np.add.at(sums, [places[image] for image in images], values)
  return sums


def resample(
  counts, *, resamples: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> np.ndarray:
  """Returns [resamples, c], sums over images drawn with replacement.

  Images with equal counts are exchangeable, so a resample draws the
  multiplicity of each distinct row of counts. The distribution equals that of
  drawing images one by one, at the cost of the distinct rows only. If nearly
  all rows are distinct, images are drawn one by one.

  Args:
    counts: [n, c], one row per image.
    resamples: number of resamples of n images.
    seed: random seed.

  Raises:
    ValueError: no images.
  """
  counts = np.asarray(counts)
  if counts.ndim != 2 or not len(counts):
    raise ValueError(
      f"expected counts [images, c] of at least one image, got {counts.shape}."
    )
  distinct, repeats = np.unique(counts, axis=0, return_counts=True)
  rng = np.random.default_rng(seed)
  step = max(1, _CELLS_AT_ONCE // len(distinct))
  sums = [
    _draw(rng, repeats, min(step, resamples - start)) @ distinct
    for start in range(0, resamples, step)
  ]
  return np.concatenate(sums)


def _draw(rng: np.random.Generator, repeats, times: int) -> np.ndarray:
  """Returns int[times, distinct], multiplicity of each row per resample."""
  n = repeats.sum()
  if _DRAW_COST * len(repeats) < n:
    return rng.multinomial(n, repeats / n, size=times)
  kind = np.repeat(np.arange(len(repeats)), repeats)
  drawn = (kind[rng.integers(0, n, n)] for _ in range(times))
  return np.stack([np.bincount(of, minlength=len(repeats)) for of in drawn])
