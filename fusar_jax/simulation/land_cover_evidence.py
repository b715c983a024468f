"""Land cover of real points from radar, AlphaEarth, both, or location alone.

COMMAND (a minute; its matrices are too small for threads):
  OPENBLAS_NUM_THREADS=1 python -m fusar_jax.simulation.land_cover_evidence \\
      --points aef_points_s1_dw

TLM can only help where AlphaEarth vectors hold what radar does not. This check
predicts the Dynamic World label of a point from

  radar       VV and VH in dB, their squares and product
  alphaearth  the 64 bands of its vector
  both        all of these
  location    longitude and latitude, their squares and product: the accuracy
              that spatial proximity alone provides, a control of the split

and reports accuracy and balanced accuracy (mean recall of the labels), which
are equal if all labels are equally frequent, except for their intervals.

Splits are spatial: square blocks are assigned to folds, and training points
within a buffer around a test point are dropped. Each feature set chooses among
logistic regressions and nearest neighbours by an inner, also spatial,
cross-validation. Intervals resample blocks.

Two caveats. Dynamic World is derived from Sentinel-2, which AlphaEarth ingests
along with Sentinel-1, so the label is partly a function of AlphaEarth's input.
And a pixel's VV and VH are less than an image: texture and shape are missing.
The gain is thus an upper bound of what anchors can add to a SAR image.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fusar_jax import command_line
from fusar_jax.metrics import intervals
from fusar_jax.metrics.baselines.logistic import fit_weights
from fusar_jax.simulation.covers import COVERS, REGIONS
from fusar_jax.simulation.fit import Points, read_rows

BLOCK_DEGREES = 0.05
BUFFER_KM = 1.0
FOLDS = 5
_INNER_FOLDS = 3
# L2 penalties of the mean loss, on standardised features.
_PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4)
_NEIGHBOURS = (5, 15, 45)
_KM_PER_DEGREE = 111.2
_FIRST = "radar"
# Columns of the table, also if stdout is a file.
_WIDTH = 110
# Reported differences: first minus second.
_DIFFERENCES = (
  ("alphaearth", "radar"),
  ("both", "radar"),
  ("both", "alphaearth"),
)


@dataclasses.dataclass(frozen=True)
class Score:
  """A share of 1 and its 95 % interval over blocks."""

  value: float
  ci95: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Evidence:
  """Scores of one region, or of all.

  Attributes:
    points, blocks: numbers of them.
    accuracy, balanced: of each feature set, and "a - b" for _DIFFERENCES.
  """

  points: int
  blocks: int
  accuracy: Mapping[str, Score]
  balanced: Mapping[str, Score]


@dataclasses.dataclass(frozen=True, eq=False)
class LocatedPoints(Points):
  """Real points with both polarisations and their location.

  Attributes:
    vh: float64[n], dB.
    lonlat: float64[n, 2], degrees.
  """

  vh: np.ndarray
  lonlat: np.ndarray


def read_points(folder: str | Path) -> LocatedPoints:
  """Reads what `fit.read_points` reads, and S1_VH, longitude, latitude.

  Raises:
    ValueError: see `fit.read_points`.
  """
  rows = read_rows(folder, _further)
  return LocatedPoints(*(np.array(values) for values in zip(*rows)))


def _further(row: Mapping[str, str]):
  return float(row["S1_VH"]), [float(row["longitude"]), float(row["latitude"])]


def feature_sets(points: LocatedPoints) -> dict[str, np.ndarray]:
  """Returns {name: float64[n, features]}."""
  radar = _quadratic(np.stack([points.vv, points.vh], axis=1))
  return {
    "radar": radar,
    "alphaearth": points.vectors,
    "both": np.concatenate([radar, points.vectors], axis=1),
    "location": _quadratic(points.lonlat),
  }


def evaluate(
  points: LocatedPoints,
  block_degrees: float = BLOCK_DEGREES,
  buffer_km: float = BUFFER_KM,
) -> Evidence:
  """Cross-validates every feature set on the same folds of blocks.

  Args:
    points: of one or more regions.
    block_degrees: side of a block, in degrees of longitude and latitude.
    buffer_km: minimum distance of training points from test points.

  Raises:
    ValueError: fewer blocks than folds.
  """
  block = blocks(points.lonlat, block_degrees)
  number = block.max() + 1
  if number < FOLDS:
    raise ValueError(
      f"{number} blocks of {block_degrees:g} degrees: expected at least"
      f" {FOLDS}; use smaller blocks."
    )
  distance = distances_km(points.lonlat)
  sets = feature_sets(points)
  # Per block and label: the number of points, then of hits of each set.
  counts = [_by_block(block, points.cover, np.ones(len(block)))]
  for features in sets.values():
    found = cross_validate(features, points.cover, block, distance, buffer_km)
    counts.append(_by_block(block, points.cover, found == points.cover))
  counts = np.concatenate(counts, axis=1)
  drawn = intervals.resample(counts)

  def scores(statistic):
    value = _named(counts.sum(0), sets, statistic)
    found = {}
    for name, resampled in _named(drawn, sets, statistic).items():
      low, high = np.percentile(resampled, [2.5, 97.5])
      interval = float(low), float(high)
      found[name] = Score(float(value[name]), interval)
    return found

  return Evidence(len(block), int(number), scores(_accuracy), scores(_balanced))


def _named(sums, sets, statistic) -> dict[str, np.ndarray]:
  """Returns {feature set or difference: [...]} of sums [..., columns]."""
  totals, *hits = np.split(sums, len(sets) + 1, axis=-1)
  named = {name: statistic(totals, of) for name, of in zip(sets, hits)}
  return named | {f"{a} - {b}": named[a] - named[b] for a, b in _DIFFERENCES}


def blocks(lonlat: np.ndarray, degrees: float) -> np.ndarray:
  """Returns int[n], the index of the square block of each point.

  Example: two points in one block of 0.1 degrees, one in the next.
    >>> blocks(np.array([[10.01, 5.0], [10.09, 5.0], [10.11, 5.0]]), 0.1)
    array([0, 0, 1])
  """
  cells = np.floor(lonlat / degrees).astype(int)
  return np.unique(cells, axis=0, return_inverse=True)[1].reshape(-1)


def distances_km(lonlat: np.ndarray) -> np.ndarray:
  """Returns float64[n, n], distances on a sphere, exact if small."""
  lon, lat = np.deg2rad(lonlat).T
  x = (lon[:, None] - lon) * np.cos((lat[:, None] + lat) / 2)
  return np.rad2deg(np.hypot(x, lat[:, None] - lat)) * _KM_PER_DEGREE


def cross_validate(
  features: np.ndarray,
  label: np.ndarray,
  block: np.ndarray,
  distance: np.ndarray,
  buffer_km: float,
) -> np.ndarray:
  """Returns int[n], the label of each point predicted from other folds.

  Args:
    features: float[n, features].
    label: int[n], index into COVERS.
    block: int[n]; the points of a block are in one fold.
    distance: float[n, n], in km.
    buffer_km: training points this close to a test point are dropped.
  """
  found = np.empty_like(label)
  for train, test in _splits(block, FOLDS, distance, buffer_km):
    near = distance[np.ix_(train, train)]
    right = np.zeros(len(_PENALTIES) + len(_NEIGHBOURS))
    for inner, held in _splits(block[train], _INNER_FOLDS, near, buffer_km):
      inner, held = train[inner], train[held]
      candidates = _candidates(features[inner], label[inner], features[held])
      right += [np.count_nonzero(c == label[held]) for c in candidates]
    best = int(right.argmax())
    found[test] = _candidates(
      features[train], label[train], features[test], only=best
    )[0]
  return found


def _splits(block, folds, distance, buffer_km):
  """Yields (train, test), row indices of each fold.

  Blocks go to the smallest fold, the largest block first.
  """
  kinds, sizes = np.unique(block, return_counts=True)
  fold_of, filled = {}, np.zeros(folds, int)
  for i in np.argsort(-sizes, kind="stable"):
    fold_of[kinds[i]] = filled.argmin()
    filled[filled.argmin()] += sizes[i]
  fold = np.array([fold_of[b] for b in block])
  for k in range(folds):
    test = np.flatnonzero(fold == k)
    train = np.flatnonzero(fold != k)
    apart = distance[np.ix_(train, test)].min(1) > buffer_km
    yield train[apart], test


def _candidates(features, label, asked, only=None) -> list[np.ndarray]:
  """Returns int[m] per classifier: each penalty, then each neighbourhood."""
  center, scale = features.mean(0), features.std(0)
  scale[scale == 0] = 1
  x, z = (features - center) / scale, (asked - center) / scale
  chosen = range(len(_PENALTIES) + len(_NEIGHBOURS)) if only is None else [only]
  found, start = [], None
  for k in chosen:
    if k < len(_PENALTIES):
      # Decreasing penalties: the previous solution is a good start.
      start = fit_weights(
        x, label, len(COVERS), penalty=_PENALTIES[k], start=start
      )
      found.append((z @ start[:-1] + start[-1]).argmax(1))
    else:
      found.append(_nearest(x, label, z, _NEIGHBOURS[k - len(_PENALTIES)]))
  return found


def _nearest(x, label, asked, neighbours: int) -> np.ndarray:
  """Returns int[m], the most frequent label of the nearest points."""
  squares = (asked**2).sum(1)[:, None] - 2 * asked @ x.T + (x**2).sum(1)
  nearest = np.argsort(squares, axis=1, kind="stable")[:, :neighbours]
  return np.eye(len(COVERS))[label[nearest]].sum(1).argmax(1)


def _quadratic(values: np.ndarray) -> np.ndarray:
  """Returns [n, 5]: two columns, their squares and their product."""
  # Centred, or squares of longitudes would be copies of longitudes.
  a, b = (values - values.mean(0)).T
  return np.stack([a, b, a * a, b * b, a * b], axis=1)


def _by_block(block, label, values) -> np.ndarray:
  """Returns float64[blocks, labels], sums of the values."""
  sums = np.zeros((block.max() + 1, len(COVERS)))
  np.add.at(sums, (block, label), values)
  return sums


def _accuracy(totals, hits) -> np.ndarray:
  return hits.sum(-1) / totals.sum(-1)


def _balanced(totals, hits) -> np.ndarray:
  # A resample may lack a label.
  return intervals.ratio(hits, totals).sum(-1) / (totals > 0).sum(-1)


def evidence_table(found: Mapping[str, Evidence]) -> Table:
  """Returns a table of percentages, one row per region and quantity."""
  table = Table("region", "points, blocks", "from")
  for heading in ("accuracy (95 %)", "balanced accuracy (95 %)"):
    table.add_column(heading, justify="right")
  for region, one in found.items():
    for name in one.accuracy:
      scores = one.accuracy[name], one.balanced[name]
      first = name == _FIRST
      table.add_row(
        region if first else "",
        f"{one.points}, {one.blocks}" if first else "",
        name,
        *(_text(score, sign="+" if " - " in name else "") for score in scores),
      )
    table.add_section()
  return table


def _text(score: Score, sign: str) -> str:
  low, high = (f"{100 * bound:{sign}.1f}" for bound in score.ci95)
  return f"{100 * score.value:{sign}.1f} ({low} to {high})"


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.simulation.land_cover_evidence",
    description=(__doc__ or "").split("\n")[0],
  )
  p.add_argument("--points", required=True, help="folder of the points' CSV")
  p.add_argument(
    "--block",
    type=float,
    default=BLOCK_DEGREES,
    help="side of a spatial block in degrees (default: %(default)s)",
  )
  p.add_argument(
    "--buffer",
    type=float,
    default=BUFFER_KM,
    help="km between training and test points (default: %(default)s)",
  )
  return command_line.run(p, _print_evidence, argv)


def _print_evidence(args: argparse.Namespace) -> None:
  found = {}
  points = read_points(Path(args.points))
  for region, name in enumerate(REGIONS):
    some = points[points.region == region]
    found[name] = evaluate(some, args.block, args.buffer)
  found["all"] = evaluate(points, args.block, args.buffer)
  Console(width=_WIDTH).print(evidence_table(found))


if __name__ == "__main__":
  sys.exit(main())
