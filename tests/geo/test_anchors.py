"""Official anchor files: reading, writing, rejected input."""

import contextlib

import numpy as np
import pytest

from fusar_jax.geo import anchors as anchors_lib


def _random(count, seed=0):
  rng = np.random.default_rng(seed)
  return anchors_lib.Anchors(
    (rng.normal(size=(count, 64)) / 8).astype(np.float32),
    rng.random((count, 2)).astype(np.float32),
  )


def test_npz_round_trip(tmp_path):
  """Round trip; the header alone gives the count."""
  path = tmp_path / "a" / "x.npz"
  anchors_lib.write_anchors(path, _random(7))
  back = anchors_lib.read_anchors(path)
  np.testing.assert_array_equal(back.features, _random(7).features)
  np.testing.assert_array_equal(back.positions, _random(7).positions)
  assert anchors_lib.count_anchors(path) == len(back) == 7
  assert [p.name for p in path.parent.iterdir()] == ["x.npz"]


@pytest.mark.parametrize("structured", [False, True])
def test_npy_tables_min_max_normalise_x_and_y(tmp_path, structured):
  """Columns lon, lat, row, col, x, y, A00..A63, numeric or by name."""
  table = np.zeros((3, 70))
  table[:, 4] = [10, 20, 30]  # x
  table[:, 5] = [5, 5, 7]  # y
  table[:, 6:] = np.arange(3)[:, None] / 8 + np.arange(64) / 100
  names = ["lon", "lat", "row", "col", "x", "y"]
  names += [f"A{i:02d}" for i in range(64)]
  if structured:
    kinds = [(name, "f4") for name in names]
    saved = np.array([tuple(row) for row in table], dtype=kinds)
  else:
    saved = table
  np.save(tmp_path / "t.npy", saved)
  back = anchors_lib.read_anchors(tmp_path / "t.npy")
  np.testing.assert_allclose(back.positions, [[0, 0], [0, 0.5], [1, 1]])
  np.testing.assert_allclose(back.features, table[:, 6:], rtol=1e-6)
  assert anchors_lib.count_anchors(tmp_path / "t.npy") == 3


@pytest.mark.parametrize(
  ("features", "positions", "message"),
  [
    (np.zeros((3, 63)), np.zeros((3, 2)), r"features must be \[S, 64\]"),
    (np.zeros((3, 64)), np.zeros((3, 3)), r"positions must be \[S, 2\]"),
    (np.zeros((3, 64)), np.zeros((2, 2)), "3 features but 2 positions"),
    (np.zeros((0, 64)), np.zeros((0, 2)), "no anchor in the file"),
    (np.full((3, 64), np.nan), np.zeros((3, 2)), "NaN or infinity"),
    (np.zeros((3, 64)), np.full((3, 2), np.nan), "NaN or infinity"),
    (np.full((3, 64), 127), np.zeros((3, 2)), "reach 127; .*dequantise"),
    (np.full((3, 64), 1e39), np.zeros((3, 2)), "reach inf|NaN or inf"),
    (np.zeros((3, 64)), np.full((3, 2), 1.5), "3 are outside"),
    (np.zeros((3, 64)), -np.eye(3, 2), "2 are outside"),
    (np.full((3, 64), "x"), np.zeros((3, 2)), "must be numbers"),
  ],
)
def test_bad_values_are_rejected_with_the_file(
  tmp_path, features, positions, message
):
  path = tmp_path / "bad.npz"
  np.savez(path, features=features, positions=positions)
  with pytest.raises(ValueError, match=message) as caught:
    anchors_lib.read_anchors(path)
  assert "bad.npz" in str(caught.value)


def test_missing_and_foreign_files_are_listed(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
    anchors_lib.read_anchors(tmp_path / "nowhere.npz")
  np.savez(tmp_path / "other.npz", something=np.zeros(3))
  for reader in (anchors_lib.read_anchors, anchors_lib.count_anchors):
    with pytest.raises(ValueError, match=r"other\.npz"):
      reader(tmp_path / "other.npz")
  np.save(tmp_path / "short.npy", np.zeros((3, 69)))
  with pytest.raises(ValueError, match=r"\[S, 70\].*got \[3, 69\]"):
    anchors_lib.read_anchors(tmp_path / "short.npy")
  np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
  with pytest.raises(ValueError, match=r"objects\.npy"):
    anchors_lib.read_anchors(tmp_path / "objects.npy")


def test_corrupt_files_give_nothing_but_value_errors(tmp_path):
  """Truncated and mutated bytes of both formats."""
  anchors_lib.write_anchors(tmp_path / "a.npz", _random(5))
  np.save(tmp_path / "a.npy", np.zeros((5, 70), np.float32))
  rng = np.random.default_rng(0)
  for name in ("a.npz", "a.npy"):
    whole = (tmp_path / name).read_bytes()
    for trial in range(60):
      data = bytearray(whole)
      if trial % 2:
        data = data[: rng.integers(len(data))]
      else:
        for at in rng.integers(len(data), size=4):
          data[at] = rng.integers(256)
      path = tmp_path / f"b{name[1:]}"
      path.write_bytes(data)
      for reader in (anchors_lib.read_anchors, anchors_lib.count_anchors):
        with contextlib.suppress(ValueError):
          reader(path)


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_file_that_unpacks_to_more_than_any_image_needs(tmp_path, suffix):
  """The claim of a header is enough: nothing of that size is read."""
  path = tmp_path / f"bomb{suffix}"
  if suffix == ".npz":
    many = np.zeros((anchors_lib.MAX_ANCHORS * 2, 64), np.float64)
    np.savez_compressed(path, features=many, positions=many[:, :2])
    assert path.stat().st_size < 1e6
  else:
    header = {"shape": (1 << 40, 70), "fortran_order": False, "descr": "<f8"}
    with path.open("wb") as file:
      np.lib.format.write_array_header_1_0(file, header)
  with pytest.raises(ValueError, match=rf"bomb\{suffix}: .* 262,144 anchors"):
    anchors_lib.read_anchors(path)
