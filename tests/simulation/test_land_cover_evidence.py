"""Spatial splits, the classifier, and evidence planted in made points."""

import numpy as np
import pytest

from fusar_jax.metrics.baselines.logistic import fit_weights
from fusar_jax.simulation import land_cover_evidence as evidence
from fusar_jax.simulation.covers import COVERS

CHANCE = 1 / len(COVERS)


def made_points(
  known_by: str | None = None, seed=0, side=5, each=10
) -> evidence.LocatedPoints:
  """Points of 5 x 5 blocks of 0.1 degrees with labels that one source knows.

  Without a source a block has one random label: only neighbours know it.
  """
  rng = np.random.default_rng(seed)
  n = side * side * each
  corner = np.stack(np.divmod(np.arange(side * side), side), axis=1)
  offset = rng.uniform(0.001, 0.099, (n, 2))
  lonlat = np.repeat(corner, each, axis=0) * 0.1 + offset + [10, 0]
  cover = rng.integers(0, len(COVERS), n)
  radar = rng.standard_normal((n, 2))
  vectors = rng.standard_normal((n, 64)) / 8
  if known_by == "radar":
    radar += 20 * np.stack(np.divmod(cover, 3), axis=1)
  elif known_by == "alphaearth":
    vectors[np.arange(n), cover] += 2
  else:
    cover = np.repeat(rng.integers(0, len(COVERS), side * side), each)
  return evidence.LocatedPoints(
    np.zeros(n, int), cover, radar[:, 0], vectors, radar[:, 1], lonlat
  )


@pytest.fixture(autouse=True)
def one_penalty(monkeypatch):
  monkeypatch.setattr(evidence, "_PENALTIES", (1e-2,))


@pytest.mark.parametrize("source", ["radar", "alphaearth"])
def test_the_source_that_knows_the_label_is_found(source):
  found = evidence.evaluate(made_points(source), 0.1)
  assert (found.points, found.blocks) == (250, 25)
  assert found.accuracy[source].value > 0.97
  assert found.accuracy["both"].value > 0.9
  for name in {"radar", "alphaearth", "location"} - {source}:
    assert found.accuracy[name].value < 2 * CHANCE
  gain = found.balanced["both - radar"]
  if source == "radar":
    assert gain.value < 0.05
  else:
    assert gain.ci95[0] > 0.7


def test_neighbours_are_never_on_both_sides():
  """The label of a block is known to its own points alone.

  Nearest neighbours of a random split would be right nearly always.
  """
  points = made_points()
  block = evidence.blocks(points.lonlat, 0.1)
  distance = evidence.distances_km(points.lonlat)
  tested = []
  for train, test in evidence._splits(block, 5, distance, buffer_km=2):
    assert not set(block[train]) & set(block[test])
    assert distance[np.ix_(train, test)].min() > 2
    tested += list(test)
  assert sorted(tested) == list(range(250))
  features = evidence.feature_sets(points)["location"]
  found = evidence.cross_validate(features, points.cover, block, distance, 2)
  assert (found == points.cover).mean() < 3 * CHANCE
  of_neighbour = points.cover[(distance + 1e9 * np.eye(250)).argmin(1)]
  assert (of_neighbour == points.cover).mean() > 0.85


def test_distances():
  """One degree of latitude is 111 km; of longitude at 60 degrees, half."""
  lonlat = np.array([[5.0, 60.0], [5.0, 61.0], [7.0, 60.0]])
  found = evidence.distances_km(lonlat)
  np.testing.assert_allclose(found[0], [0, 111.2, 111.2], atol=0.1)


def test_logistic_regression_without_information_gives_frequencies():
  """The penalty excludes the intercept: shares of 5, 3 and 2 of 10."""
  label = np.array([0] * 5 + [1] * 3 + [2] * 2)
  weights = fit_weights(np.zeros((10, 1)), label, len(COVERS), penalty=1.0)
  probability = np.exp(weights[-1]) / np.exp(weights[-1]).sum()
  np.testing.assert_allclose(probability[:3], [0.5, 0.3, 0.2], atol=1e-3)


def test_logistic_regression_balances_loss_and_penalty():
  """At the optimum the mean residual times x is minus penalty * weight."""
  rng = np.random.default_rng(1)
  x, label = rng.standard_normal((60, 2)), rng.integers(0, len(COVERS), 60)
  weights = fit_weights(x, label, len(COVERS), penalty=0.1)
  logits = x @ weights[:-1] + weights[-1]
  share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  residual = x.T @ (share - np.eye(len(COVERS))[label]) / 60
  np.testing.assert_allclose(residual, -0.1 * weights[:-1], atol=1e-4)


def test_errors_name_the_file_or_the_fix(tmp_path, capsys):
  columns = {"region": "iowa_ag", "dw_label": "1", "S1_VV": "-8.5"}
  columns |= {f"A{band:02d}": "0.1" for band in range(64)}
  lines = [",".join(columns), ",".join(columns.values())]
  (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
  assert evidence.main(["--points", str(tmp_path)]) == 1
  assert "a.csv line 2: KeyError('S1_VH')" in capsys.readouterr().err
  with pytest.raises(ValueError, match="1 blocks of 9 degrees: expected at"):
    evidence.evaluate(made_points("radar", side=2), 9)
