"""The table is what the fit makes of the real points, and it is good."""

import json

import numpy as np
import pytest

from fusar_jax.simulation import covers, fit
from fusar_jax.simulation.covers import COVERS, REGIONS

POINTS = "data/aef_points_s1_dw"


@pytest.fixture(scope="module")
def points(shared):
  return fit.read_points(shared / POINTS)


def _made_points(seed=0, each=40):
  """Points simulated from the shipped table, as a stand-in for real ones."""
  rng = np.random.default_rng(seed)
  return fit.simulate_points(rng, covers.ground_statistics(), each)


def _csv(path, **changed):
  row = {"region": "iowa_ag", "dw_label": "1", "S1_VV": "-8.5"}
  row |= {f"A{band:02d}": "1.0E-1" for band in range(64)} | changed
  row = {name: value for name, value in row.items() if value is not None}
  path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")


def test_real_points_give_the_shipped_table(points):
  assert len(points.vv) == 3 * 8 * 80
  assert fit.differences(covers.shipped_table(), fit.fit(points)) == []


def test_simulated_vectors_teach_nearly_as_well_as_real_ones(points):
  by_simulated, by_real = fit.goodness(points, draws=96).T
  assert (by_real > 0.6).all()  # of 8 covers: chance is 0.125
  assert (by_simulated >= fit.GOOD * by_real).all()


def test_the_fit_finds_the_table_that_points_were_drawn_from():
  table = covers.ground_statistics()
  again = covers.parse(fit.fit(_made_points(each=120)))
  np.testing.assert_allclose(again.vv_mean, table.vv_mean, atol=1.2)
  np.testing.assert_allclose(again.vv_std, table.vv_std, rtol=0.35)
  np.testing.assert_allclose(
    again.embedding_mean, table.embedding_mean, atol=0.04
  )


def test_differences_name_the_entry_and_forgive_one_step():
  table = covers.shipped_table()
  step = json.loads(json.dumps(table))
  step["embedding_mean"][0][0][0] += 1
  assert fit.differences(table, step) == []
  step["embedding_mean"][0][0][0] += 1
  step["vv_std_db"][2][7] += 0.05
  del step["embedding_unit"]
  assert fit.differences(table, step) == [
    "embedding_mean",
    "embedding_unit",
    "vv_std_db",
  ]


def test_the_command_writes_the_shipped_file(
  shared, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(fit, "goodness", lambda _: np.ones((4, 2)))
  out = tmp_path / "table.json"
  assert fit.main(["--points", str(shared / POINTS), "--out", str(out)]) == 0
  assert (
    fit.differences(json.loads(out.read_text()), covers.shipped_table()) == []
  )
  assert out.stat().st_size < 200_000
  assert "all in one" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("change", "ratio", "message"),
  [({"embedding_unit": 0.001}, 1.0, "embedding_unit"), ({}, 0.88, "below 0.9")],
)
def test_the_command_fails_for_a_poor_table(
  shared, monkeypatch, capsys, change, ratio, message
):
  table = covers.shipped_table() | change
  monkeypatch.setattr(covers, "shipped_table", lambda: table)
  shares = np.array([[0.7, 0.7]] * 3 + [[0.7 * ratio, 0.7]])
  monkeypatch.setattr(fit, "goodness", lambda _: shares)
  assert fit.main(["--points", str(shared / POINTS)]) == 1
  assert message in capsys.readouterr().err


def test_reading_leaves_snow_out(tmp_path):
  _csv(tmp_path / "a.csv", dw_label="8")
  _csv(tmp_path / "b.csv", dw_label="0")
  points = fit.read_points(tmp_path)
  assert points.region.tolist() == [REGIONS.index("iowa")]
  assert points.cover.tolist() == [COVERS.index("water")]
  assert points.vv.tolist() == [-8.5]
  assert points.vectors.shape == (1, 64)


@pytest.mark.parametrize(
  ("changed", "found"),
  [
    ({"region": "texas"}, "'texas'"),
    ({"dw_label": "9"}, "dw_label 9"),
    ({"S1_VV": ""}, "could not convert"),
    ({"A17": None}, "A17"),
  ],
)
def test_a_bad_row_is_named(tmp_path, changed, found):
  _csv(tmp_path / "bad.csv", **changed)
  with pytest.raises(ValueError, match=r"bad\.csv line 2") as error:
    fit.read_points(tmp_path)
  assert found in str(error.value)


def test_a_folder_without_points_and_a_cover_without_points(tmp_path):
  with pytest.raises(ValueError, match=r"no \*\.csv"):
    fit.read_points(tmp_path)
  points = _made_points(each=3)
  few = points[(points.region != 2) | (points.cover != covers.BARE)]
  with pytest.raises(ValueError, match="iowa, bare: 0 points"):
    fit.fit(few)
