"""Fits the land-cover table to real points and evaluates the fit.

COMMAND (checks the shipped table and prints its goodness; takes seconds):
  python -m fusar_jax.simulation.fit --points aef_points_s1_dw
COMMAND (makes a table):
  python -m fusar_jax.simulation.fit --points FOLDER --out table.json

Backscatter: median, and median absolute deviation x 1.4826, which are robust to
wrong labels (std of Amazon water: 4.3 dB; robust estimate: 1.3 dB). Vectors:
mean, and the covariance as its FACTORS largest principal components plus the
residual diagonal.

Goodness: accuracy of a linear classifier trained on simulated vectors, relative
to one trained on real vectors, on real points held out from the table. Spatial
neighbours may be on both sides of the split, for both classifiers.
"""

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Self

import numpy as np
from rich.console import Console
from rich.table import Table

from fusar_jax import command_line
from fusar_jax.geo.anchors import ATTRIBUTION, BANDS
from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.simulation import covers
from fusar_jax.simulation.covers import COVERS, REGIONS, GroundStatistics
from fusar_jax.simulation.embeddings import draw_embeddings

FACTORS = 8
# Unit of the table's integers: 1/7 of the product's step size at 0.05.
_UNIT = 0.0005
FOLDS = 5
GOOD = 0.9
# Training vectors per region and cover.
_DRAWS = 256
# Ridge penalty relative to the mean variance of a band.
_RIDGE = 0.01
_SNOW = len(COVERS)

SOURCES = {
  "points": (
    "3 x 720 points of 2024 (80 per region and label) with Sentinel-1 VV,"
    " AlphaEarth vector and Dynamic World label, published at github.com/"
    "letocassius/alphaearth-to-sar-cross-model-prediction, commit f4d5fbbacfa4;"
    " without the label snow. This table holds statistics of them only."
  ),
  "alphaearth": f"{ATTRIBUTION} CC-BY 4.0.",
  "dynamic_world": (
    "Dynamic World V1, doi 10.1038/s41597-022-01307-4, CC-BY 4.0. This dataset"
    " is produced for the Dynamic World Project by Google in partnership with"
    " National Geographic Society and the World Resources Institute."
  ),
  "sentinel_1": "Contains modified Copernicus Sentinel data 2024.",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
  """Real points, n of them.

  Attributes:
    region: int[n], index into REGIONS.
    cover: int[n], index into COVERS.
    vv: float64[n], dB.
    vectors: float64[n, 64], de-quantised AlphaEarth.
  """

  region: np.ndarray
  cover: np.ndarray
  vv: np.ndarray
  vectors: np.ndarray

  def __getitem__(self, rows) -> Self:
    """Returns the points at these rows (indices or bool[n])."""
    return type(self)(*(v[rows] for v in vars(self).values()))


def read_points(folder: str | Path) -> Points:
  """Reads the CSV files of a folder in name order.

  Columns: region (starts with one of REGIONS), dw_label 0..8 (snow points are
  skipped), S1_VV in dB, A00..A63.

  Raises:
    ValueError: no file, or a row with a missing column, an invalid number or
      an unknown region or label; the message names file and row.
  """
  return Points(*(np.array(values) for values in zip(*read_rows(folder))))


def read_rows(
  folder: str | Path,
  more: Callable[[Mapping[str, str]], Iterable] = lambda _: (),
) -> list[tuple]:
  """Returns (region, cover, vv, vector, *more) of every point without snow.

  Args:
    folder: see `read_points`.
    more: returns further values of a row, {column: text}.

  Raises:
    ValueError: see `read_points`.
  """
  files = sorted(Path(folder).glob("*.csv"))
  if not files:
    raise ValueError(f"{folder}: no *.csv; expected the folder of the points.")
  read = []
  for path in files:
    with path.open(newline="", encoding="utf-8-sig") as file:
      try:
        rows = list(csv.DictReader(file))
      except (ValueError, csv.Error) as e:
        raise ValueError(f"{path}: not a table: {e}.") from e
      for number, row in enumerate(rows, 2):
        try:
          point = (*_point(row), *more(row))
        except (KeyError, TypeError, ValueError, OverflowError) as e:
          raise ValueError(f"{path} line {number}: {e!r}.") from e
        if point[1] != _SNOW:
          read.append(point)
  return read


def _point(row):
  names = [name for name in REGIONS if row["region"].startswith(name)]
  label = int(float(row["dw_label"]))
  if len(names) != 1 or not 0 <= label <= _SNOW:
    raise ValueError(
      f"region {row['region']!r} must begin with one of {list(REGIONS)},"
      f" dw_label {label} be 0..{_SNOW}"
    )
  vector = [float(row[f"A{band:02d}"]) for band in range(BANDS)]
  return REGIONS.index(names[0]), label, float(row["S1_VV"]), vector


def fit(points: Points) -> dict:
  """Returns the JSON-ready table of the points (read by `covers.parse`).

  Raises:
    ValueError: fewer than two points of a region and cover; the message names
      them.
  """
  shape = len(REGIONS), len(COVERS)
  vv_mean, vv_std = np.zeros(shape), np.zeros(shape)
  mean = np.zeros((*shape, BANDS))
  covariance = np.zeros((*shape, BANDS, BANDS))
  for region, cover in np.ndindex(shape):
    some = points[(points.region == region) & (points.cover == cover)]
    if len(some.vv) < 2:
      raise ValueError(
        f"{REGIONS[region]}, {COVERS[cover]}: {len(some.vv)} points, at least 2"
        " are needed."
      )
    vv_mean[region, cover] = np.median(some.vv)
    apart = np.abs(some.vv - vv_mean[region, cover])
    vv_std[region, cover] = 1.4826 * np.median(apart)
    mean[region, cover] = some.vectors.mean(0)
    covariance[region, cover] = np.cov(some.vectors.T)
  factors, noise = _factors(covariance)
  return {
    "sources": SOURCES,
    "regions": list(REGIONS),
    "covers": list(COVERS),
    "vv_mean_db": vv_mean.round(2).tolist(),
    "vv_std_db": vv_std.round(2).tolist(),
    "embedding_unit": _UNIT,
    "embedding_mean": _whole(mean),
    "embedding_factors": _whole(factors),
    "embedding_noise": _whole(noise),
  }


def _factors(covariance):
  """Returns factors [..., K, 64] and noise [..., 64] of [..., 64, 64]."""
  values, vectors = np.linalg.eigh(covariance)
  values, vectors = values[..., -FACTORS:], vectors[..., -FACTORS:]
  factors = np.swapaxes(vectors * np.sqrt(values)[..., None, :], -1, -2)
  # Resolve the sign ambiguity: the largest entry is positive.
  at = np.abs(factors).argmax(-1)[..., None]
  factors *= np.sign(np.take_along_axis(factors, at, -1))
  whole = np.diagonal(covariance, axis1=-2, axis2=-1)
  left = whole - (factors**2).sum(-2)
  return factors[..., ::-1, :], np.sqrt(np.maximum(left, 0))


def _whole(values):
  return np.rint(values / _UNIT).astype(int).tolist()


def goodness(points: Points, seed: int = 0, draws: int = _DRAWS) -> np.ndarray:
  """Compares classifiers trained on simulated and on real vectors.

  Cross-validation over FOLDS random folds, stratified by region and cover. The
  table is fitted to the training folds, and `draw_embeddings` simulates vectors
  from it, one single-pixel scene each. Classifiers per kind of vector, for each
  region and for all regions, label the held-out fold.

  Returns:
    float64[R + 1, 2], accuracy (simulated, real training vectors); rows are
    the regions, then all regions together.
  """
  rng = np.random.default_rng(seed)
  fold = np.zeros(len(points.vv), int)
  for region, cover in np.ndindex(len(REGIONS), len(COVERS)):
    rows = np.flatnonzero((points.region == region) & (points.cover == cover))
    fold[rng.permutation(rows)] = np.arange(len(rows)) % FOLDS
  right = np.zeros((len(REGIONS) + 1, 2))
  asked = np.zeros((len(REGIONS) + 1, 1))
  for k in range(FOLDS):
    real, held = points[fold != k], points[fold == k]
    made = simulate_points(rng, covers.parse(fit(real)), draws)
    for row in range(len(REGIONS) + 1):
      test = held if row == len(REGIONS) else held[held.region == row]
      for column, source in enumerate((made, real)):
        if row < len(REGIONS):
          source = source[source.region == row]
        found = classify(source.vectors, source.cover, test.vectors)
        right[row, column] += np.count_nonzero(found == test.cover)
      asked[row] += len(test.cover)
  return right / asked


def simulate_points(
  rng: np.random.Generator, statistics: GroundStatistics, draws: int
) -> Points:
  """Returns `draws` points of every region and cover, one per scene."""
  from fusar_jax.geo.alphaearth_tiles import dequantise  # imports rasterio

  shape = len(REGIONS), len(COVERS), draws
  region, cover, _ = np.indices(shape).reshape(3, -1)
  stored = [
    draw_embeddings(
      rng, np.full((1, 1), c, np.uint8), r, 10.0, statistics=statistics
    )[0, 0]
    for r, c in zip(region, cover)
  ]
  spread = rng.standard_normal(len(cover)) * statistics.vv_std[region, cover]
  vv = statistics.vv_mean[region, cover] + spread
  return Points(region, cover, vv, dequantise(np.array(stored)))


def classify(
  vectors: np.ndarray, cover: np.ndarray, asked: np.ndarray
) -> np.ndarray:
  """Labels vectors by ridge regression onto one-hot covers.

  Args:
    vectors: float[n, 64], training vectors.
    cover: int[n], their labels.
    asked: float[m, 64], vectors to label.

  Returns:
    int[m], index into COVERS.
  """
  center = vectors.mean(0)
  x, y = vectors - center, np.eye(len(COVERS))[cover]
  gram = x.T @ x
  gram += np.eye(BANDS) * (_RIDGE * np.trace(gram) / BANDS)
  weights = np.linalg.solve(gram, x.T @ (y - y.mean(0)))
  return ((asked - center) @ weights + y.mean(0)).argmax(1)


def differences(shipped: dict, made: dict) -> list[str]:
  """Returns the names of entries that differ by more than rounding."""
  names = sorted(shipped.keys() | made.keys())
  return [n for n in names if not _same(shipped.get(n), made.get(n))]


def _same(a, b):
  if not isinstance(a, list) or isinstance(a[0], str):
    return a == b
  a, b = np.array(a), np.array(b)
  # Other LAPACK builds may round the last digit differently.
  step = 1 if a.dtype.kind == "i" else 0.01
  return a.shape == b.shape and np.abs(a - b).max() <= 1.01 * step


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.simulation.fit",
    description=(__doc__ or "").split("\n")[0],
  )
  p.add_argument("--points", required=True, help="folder of the points' CSV")
  p.add_argument("--out", help="write the table there; default: compare it")
  return command_line.run(p, _fit, argv)


def _fit(args: argparse.Namespace) -> int:
  console = Console(stderr=True)
  points = read_points(args.points)
  made = fit(points)
  shipped = None if args.out else covers.shipped_table()
  shares = goodness(points)
  table = Table("region", "simulated", "real", "ratio")
  for name, (by_made, by_real) in zip((*REGIONS, "all in one"), shares):
    ratio = by_made / by_real
    table.add_row(name, f"{by_made:.3f}", f"{by_real:.3f}", f"{ratio:.3f}")
  Console().print(table)
  if args.out:
    text = _lines(made)
    write_atomically(Path(args.out), lambda file: file.write(text.encode()))
  other = differences(shipped, made) if shipped else []
  if other:
    console.print(f"fit: the shipped table differs in {other}", style="red")
  poor = (shares[:, 0] < GOOD * shares[:, 1]).any()
  if poor:
    console.print(f"fit: a ratio is below {GOOD}", style="red")
  return int(bool(other) or poor)


def _lines(table):
  """Returns JSON with each innermost list of numbers on one line."""

  def lay(value):
    if isinstance(value, list) and isinstance(value[0], list):
      return "[\n" + ",\n".join(map(lay, value)) + "\n]"
    return json.dumps(value, separators=(",", ":"))

  rows = [f"{json.dumps(name)}: {lay(value)}" for name, value in table.items()]
  return "{\n" + ",\n".join(rows) + "\n}\n"


if __name__ == "__main__":
  sys.exit(main())
