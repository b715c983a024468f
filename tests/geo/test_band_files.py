"""Exports of Earth Engine: few bands a file, pieces, floats in degrees."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_tiles import dequantise
from fusar_jax.geo.vector_lengths import check_lengths

_TRIPLETS = [list(range(i, min(i + 3, 64))) for i in range(0, 64, 3)]
_WEST, _NORTH, _DEGREE = -88.78, 44.29, 8.983111749910169e-06


def _write(path, values, *, west=_WEST, north=_NORTH, nodata=None):
  """Writes [bands, h, w] as Earth Engine does: degrees, no names of bands."""
  path.parent.mkdir(parents=True, exist_ok=True)
  bands, height, width = values.shape
  transform = Affine(_DEGREE, 0, west, 0, -_DEGREE, north)
  with rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=bands,
    dtype=values.dtype, crs="EPSG:4326", transform=transform, nodata=nodata,
  ) as file:  # fmt: skip
    file.write(values)
  return path


def _write_files(folder, vectors, groups, name="A{:02d}"):
  for group in groups:
    stem = "_".join(name.format(band) for band in group)
    _write(folder / f"{stem}.tif", vectors[group])


@pytest.fixture(scope="module")
def vectors():
  """float64[64, 9, 8], de-quantised."""
  rng = np.random.default_rng(0)
  q = rng.integers(-67, 68, (64, 9, 8)).astype(np.int8)
  return dequantise(q).astype(np.float64)


def _sample(source, height=9, width=8, **options):
  """float32[64, h, w] at all pixels."""
  rows, cols = (v.ravel() + 0.5 for v in np.indices((height, width)))
  archive = open_archive(source, **options)
  lons, lats = _WEST + cols * _DEGREE, _NORTH - rows * _DEGREE
  found_vectors, found = archive.sample(lons, lats, 2024)
  assert found.all()
  return found_vectors.T.reshape(64, height, width)


def test_files_of_few_bands_are_one_tile(tmp_path, vectors):
  """By the files' names, also if these were sorted as text."""
  as_text = sorted(range(64), key=str)
  chunks = [as_text[i : i + 8] for i in range(0, 64, 8)]
  assert chunks[0][:3] == [0, 1, 10]
  for folder, groups, name in (
    ("padded", _TRIPLETS, "A{:02d}"),
    ("text", chunks, "A{}"),
    ("overlapping", [[i, i + 1, i + 2] for i in range(62)], "A{:02d}"),
  ):
    _write_files(tmp_path / folder, vectors, groups, name)
    got = _sample(tmp_path / folder, year=2024)
    np.testing.assert_array_equal(got, vectors.astype(np.float32))
  archive = open_archive(tmp_path / "padded", year=2024)
  place = (_WEST, _NORTH - 1e-5, _WEST + 1e-5, _NORTH)
  assert len(archive.tiles_in(place, 2024)) == 22
  (resampled,) = archive.resampled_in(place, 2024)
  assert resampled.endswith("A00_A01_A02.tif")


def test_incomplete_files_of_bands_are_rejected(tmp_path, vectors):
  folder = tmp_path / "2024"
  _write_files(folder, vectors, _TRIPLETS[1:])
  with pytest.raises(ValueError, match=r"3 of 64 bands .*: A00, A01, A02"):
    open_archive(folder)
  _write(folder / "A00_A01_A02_A03.tif", vectors[[0, 1, 2, 4]])
  with pytest.raises(
    ValueError, match=r"A03 differs in .*A00_A01_A02_A03\.tif"
  ):
    open_archive(folder)
  _write(folder / "part.tif", vectors[:3])
  with pytest.raises(ValueError, match=r"part\.tif: 64 bands .* found 3, and"):
    open_archive(folder)


def test_files_of_bands_of_two_types_are_rejected(tmp_path, vectors):
  _write_files(tmp_path / "2024", vectors, _TRIPLETS)
  path = tmp_path / "2024" / "A06_A07_A08.tif"
  _write(path, vectors[6:9].astype(np.float32))
  with pytest.raises(ValueError, match=r"A06_A07_A08\.tif: another grid, type"):
    open_archive(tmp_path / "2024")


def test_pieces_of_a_large_export(tmp_path, vectors):
  """name-ROW-COLUMN.tif, each with all bands; rows from the north."""
  for row, col in ((0, 0), (0, 4), (5, 0), (5, 4)):
    piece = vectors[:, row : row + 5, col : col + 4]
    _write(
      tmp_path / "2024" / f"wisconsin-{row:010d}-{col:010d}.tif",
      piece,
      west=_WEST + col * _DEGREE,
      north=_NORTH - row * _DEGREE,
    )
  got = _sample(tmp_path)
  np.testing.assert_array_equal(got, vectors.astype(np.float32))


def test_values_as_rslearn_stores_them(tmp_path, vectors):
  stored = np.rint(vectors * 8192 + 8192).astype(np.uint16)
  got = _sample(_write(tmp_path / "a_2024.tif", stored))
  np.testing.assert_allclose(got, vectors, atol=0.5 / 8192 + 1e-7)


@pytest.mark.parametrize("scale", [127, 128])
def test_a_linear_scale_is_named(tmp_path, vectors, scale):
  q = np.rint(np.sign(vectors) * np.sqrt(np.abs(vectors)) * 127.5)
  path = _write(tmp_path / "a_2024.tif", q / scale)
  with pytest.raises(ValueError, match=rf"a_2024\.tif: .*divided by {scale},"):
    _sample(path)


def test_floats_stored_as_int8_are_named(tmp_path, vectors):
  stored = np.rint(vectors * 127).astype(np.int8)
  path = _write(tmp_path / "a_2024.tif", stored, nodata=-128)
  with pytest.raises(ValueError, match=r"have length 1, these 0\.\d+ .*linear"):
    _sample(path)


def test_real_exports(shared, tmp_path):
  """Four real files of 62 are incomplete; with the rest they agree.

  The rest is sampled from the int8 tile that was derived from all of them, at
  the published pixel below each pixel of the export.
  """
  folder = shared / "data/aef_wisconsin_64band"
  with pytest.raises(
    ValueError, match=r"4 files .* 52 of 64 bands are missing"
  ):
    open_archive(folder / "original_triplets", year=2024)
  derived = folder / "derived" / "aef_wi_utm16n_int8_topdown.tif"
  window = Window(600, 400, 60, 50)
  groups = [*_TRIPLETS[:20], [60], [61, 62, 63]]
  real = {}
  for path in (folder / "original_triplets").glob("*.tif"):
    with rasterio.open(path) as file:
      real[path.name] = file.read(window=window)
      transform = file.window_transform(window)
  rows, cols = (v.ravel() + 0.5 for v in np.indices((50, 60)))
  lons, lats = transform * (cols, rows)
  expected, found = open_archive(derived, year=2024).sample(lons, lats, 2024)
  assert found.all()
  for group in groups:
    name = "_".join(f"A{band:02d}" for band in group) + ".tif"
    made = expected.T[group].reshape(len(group), 50, 60).astype(np.float64)
    _write(
      tmp_path / name, real.get(name, made), west=transform.c, north=transform.f
    )
  vectors, found = open_archive(tmp_path, year=2024).sample(lons, lats, 2024)
  assert found.all()
  np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-7)


def test_a_few_resampled_vectors_may_be_short():
  """A pixel on the edge of two land covers is the mean of their vectors."""
  short = np.full((64, 15), 0.7 / 8, np.float32)
  check_lengths("a.tif", short, short)
  more = short[:, [0] * 16]
  with pytest.raises(ValueError, match=r"a\.tif: .*length 1, these 0\.70"):
    check_lengths("a.tif", more, more)
  with pytest.raises(ValueError, match=r"these 2\.10 .median of 1"):
    check_lengths("a.tif", 3 * short[:, :1], 3 * short[:, :1])
