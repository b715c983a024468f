"""AlphaEarth vectors at points: row orders, zones, nodata, memory."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusar_jax.geo import georeference
from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_tiles import dequantise


def _at(crs, x, y):
  return georeference.reproject(crs, "EPSG:4326", np.array(x), np.array(y))


def test_dequantise_is_the_published_formula():
  q = np.arange(-127, 128).astype(np.int8)
  vectors = dequantise(q)
  expected = [np.sign(v) * (v / 127.5) ** 2 for v in range(-127, 128)]
  np.testing.assert_array_equal(vectors, np.float32(expected))
  again = np.rint(np.sign(vectors) * np.sqrt(np.abs(vectors)) * 127.5)
  np.testing.assert_array_equal(again, q)


def test_real_wisconsin_agrees_exactly(shared):
  """Top-down, bottom-up and the tile's native pixels: the same vectors."""
  folder = shared / "data/aef_wisconsin_64band/derived"
  down = folder / "aef_wi_utm16n_int8_topdown.tif"
  up = folder / "aef_wi_utm16n_int8_bottomup.tif"
  with rasterio.open(down) as file:
    native = file.read()
    x, y = file.xy(*(v.ravel() for v in np.indices(file.shape)))
  lons, lats = _at("EPSG:32616", x, y)
  for path in (down, up):
    with open_archive(path, year=2024) as archive:
      vectors, found = archive.sample(lons, lats, 2024)
      assert found.all()
      np.testing.assert_array_equal(
        vectors, dequantise(native).reshape(64, -1).T
      )
      lengths = np.linalg.norm(vectors, axis=1)
      assert lengths.min() > 0.993
      assert lengths.max() < 1.008


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_both_row_orders_give_identical_vectors(
  tmp_path, method, write_tile, random_values, random_places
):
  """Also if the blocks of the two files are not aligned."""
  values = random_values(300, 290)
  values[:, 40:60, 30:50] = -128
  archives = [
    open_archive(
      write_tile(tmp_path / str(up) / "2024.tif", values, bottom_up=up, block=b)
    )
    for up, b in ((False, 128), (True, 256))
  ]
  lons, lats = random_places(archives[0], 4000)
  one, other = (a.sample(lons, lats, 2024, method) for a in archives)
  np.testing.assert_array_equal(one[0], other[0])
  np.testing.assert_array_equal(one[1], other[1])
  assert 0.85 < one[1].mean() < 1
  assert not one[0][~one[1]].any()


def test_bilinear_by_hand(tmp_path, write_tile, random_values):
  """Unit-length mean of de-quantised vectors without nodata."""
  values = random_values(2, 2)
  tile = write_tile(tmp_path / "2024.tif", values)
  # A quarter pixel right of and below the first centre.
  lons, lats = _at("EPSG:32616", [358417.5], [4906592.5])
  mean = np.einsum(
    "ehw,hw->e",
    dequantise(values).astype(np.float64),
    np.outer([0.75, 0.25], [0.75, 0.25]),
  )
  got, found = open_archive(tile).sample(lons, lats, 2024, "bilinear")
  assert found.all()
  np.testing.assert_allclose(got[0], mean / np.linalg.norm(mean), atol=1e-6)
  values[:, :, 1] = -128
  hole = write_tile(tmp_path / "hole" / "2024.tif", values)
  left = dequantise(values[:, :, 0]) @ np.array([0.75, 0.25])
  got, found = open_archive(hole).sample(lons, lats, 2024, "bilinear")
  np.testing.assert_allclose(got[0], left / np.linalg.norm(left), atol=1e-6)
  beside = _at("EPSG:32616", [358420.5], [4906592.5])
  assert not open_archive(hole).sample(*beside, 2024, "bilinear")[1].any()


def test_nodata_is_masked(tmp_path, write_tile, random_values):
  """-128 in one band is enough, declared or not; NaN and zeros in floats."""
  values = random_values(1, 4)
  values[17, 0, 1] = -128
  lons, lats = _at("EPSG:32616", 358415 + 10.0 * np.arange(5), [4906595] * 5)
  for nodata in (-128, None, 0):
    tile = write_tile(tmp_path / "2024.tif", values, nodata=nodata)
    vectors, found = open_archive(tile).sample(lons, lats, 2024)
    assert found.tolist() == [True, False, True, True, False]
    assert not vectors[~found].any()
  floats = dequantise(values)
  floats[:, 0, 1] = np.nan
  floats[:, 0, 2] = 0
  floats[3, 0, 3] = -9999
  tile = write_tile(tmp_path / "f" / "2024.tif", floats, nodata=-9999)
  found = open_archive(tile).sample(lons, lats, 2024)[1]
  assert found.tolist() == [True, False, False, False, False]


def test_float_tiles_are_taken_as_they_are(
  tmp_path, write_tile, random_values, random_places
):
  values = random_values(40, 50)
  tiles = [
    write_tile(tmp_path / "i" / "2024.tif", values),
    write_tile(tmp_path / "f" / "2024.tif", dequantise(values), nodata=None),
    write_tile(
      tmp_path / "d" / "2024.tif",
      dequantise(values).astype(np.float64),
      nodata=np.nan,
    ),
  ]
  lons, lats = random_places(open_archive(tiles[0]), 500)
  whole, *others = (open_archive(t).sample(lons, lats, 2024) for t in tiles)
  for other in others:
    np.testing.assert_array_equal(other[0], whole[0])
    np.testing.assert_array_equal(other[1], whole[1])
  raw = write_tile(tmp_path / "raw_2024.tif", values.astype(np.float32))
  with pytest.raises(ValueError, match=r"raw_2024\.tif.*unit length"):
    open_archive(raw).sample(lons, lats, 2024)


def test_names_of_bands_win_over_their_order(
  tmp_path, write_tile, random_values, random_places
):
  values = random_values(20, 20)
  order = np.random.default_rng(1).permutation(64)
  names = [f"A{band:02d}" for band in order]
  path = write_tile(tmp_path / "2024.tif", values[order], names=names)
  plain = open_archive(write_tile(tmp_path / "p" / "2024.tif", values))
  lons, lats = random_places(plain, 100)
  np.testing.assert_array_equal(
    open_archive(path).sample(lons, lats, 2024)[0],
    plain.sample(lons, lats, 2024)[0],
  )


def test_a_name_of_a_band_that_is_not_utf_8_names_the_file(
  tmp_path, write_tile, random_values
):
  names = [f"A{band:02d}" for band in range(64)]
  path = write_tile(tmp_path / "t_2024.tif", random_values(20, 20), names=names)
  path = Path(path)
  path.write_bytes(path.read_bytes().replace(b">A05<", b">A\xff\xfe<"))
  with pytest.raises(ValueError, match=r"t_2024\.tif: names of bands"):
    open_archive(path)


def _constant(band, height=60, width=60):
  """A tile whose vectors all point along one band, which identifies it."""
  values = np.zeros((64, height, width), np.int8)
  values[band] = 127
  return values


@pytest.mark.parametrize(
  ("left", "right", "lon", "lat"),
  [
    (32616, 32617, -84.0, 44.0),
    (32733, 32734, 18.0, -33.0),
    (32660, 32601, 180.0, 60.0),  # The date line.
  ],
)
def test_own_zone_across_a_border(tmp_path, left, right, lon, lat, write_tile):
  """Both tiles cross the border; each point is read from its own zone."""
  for band, code in enumerate((left, right)):
    x, y = georeference.reproject("EPSG:4326", f"EPSG:{code}", [lon], [lat])
    values = _constant(band)
    if band == 1:
      values[:, :10] = -128
    write_tile(
      tmp_path / "2024" / f"{code}.tif",
      values,
      crs=f"EPSG:{code}",
      west=float(x[0]) - 300,
      north=float(y[0]) + 300,
    )
  archive = open_archive(tmp_path / "2024")
  lons = lon + np.array([-2e-3, -1e-4, 1e-4, 5e-4])
  lats = np.full(4, lat)
  vectors, found = archive.sample(lons, lats, 2024)
  assert found.all()
  assert vectors.argmax(axis=1).tolist() == [0, 0, 1, 1]
  # In the north the right tile is nodata: its neighbour is read.
  vectors, found = archive.sample(lons, lats + 2.4e-3, 2024)
  assert found.all()
  assert vectors.argmax(axis=1).tolist() == [0, 0, 0, 0]
  # The same longitudes plus multiples of 360.
  turned = archive.sample(lons + 360, lats, 2024)[0]
  assert turned.argmax(axis=1).tolist() == [0, 0, 1, 1]


def test_both_sides_of_the_equator(tmp_path, write_tile):
  write_tile(
    tmp_path / "n_2024.tif", _constant(0), crs="EPSG:32633", west=5e5,
    north=300.0
  )  # fmt: skip
  write_tile(
    tmp_path / "s_2024.tif", _constant(1), crs="EPSG:32733", west=5e5,
    north=1e7 + 300,
  )  # fmt: skip
  archive = open_archive(tmp_path)
  vectors, found = archive.sample([15.001] * 2, [1e-3, -1e-3], 2024)
  assert found.all()
  assert vectors.argmax(axis=1).tolist() == [0, 1]


def test_nothing_falls_between_two_tiles(tmp_path, write_tile):
  """Points on the seam, in degrees that no float represents exactly."""
  pixel = 1e-4
  for i in range(3):
    write_tile(
      tmp_path / f"t{i}_2024.tif", _constant(i, 30, 30), crs="EPSG:4326",
      west=10.1, north=45.3 - i * 30 * pixel, pixel=pixel,
    )  # fmt: skip
  seams = 45.3 - np.arange(0, 90) * pixel
  _, found = open_archive(tmp_path).sample(np.full(90, 10.1015), seams, 2024)
  assert found.all()


def test_places_without_a_tile_are_not_found(
  tmp_path, write_tile, random_values
):
  archive = open_archive(write_tile(tmp_path / "2024.tif", random_values(9, 9)))
  lons = [0.0, np.nan, -88.7747, 400.0]
  vectors, found = archive.sample(lons, [0.0, 1.0, 95.0, np.inf], 2024)
  assert not found.any()
  assert not vectors.any()
  vectors, found = archive.sample([], [], 2024)
  assert vectors.shape == (0, 64)
  with pytest.raises(ValueError, match=r"\[n\].*\[1\].*\[2\]"):
    archive.sample([1.0], [1.0, 2.0], 2024)
  with pytest.raises(ValueError, match="not 'cubic'"):
    archive.sample([1.0], [1.0], 2024, "cubic")


def test_unknown_years_list_those_there_are(tmp_path, write_tile):
  for year in (2017, 2020, 2024):
    write_tile(tmp_path / str(year) / "32N" / "x.tif", _constant(year - 2017))
  archive = open_archive(tmp_path)
  assert archive.years == (2017, 2020, 2024)
  lons, lats = _at("EPSG:32616", [358500.0], [4906500.0])
  assert archive.sample(lons, lats, 2020)[0].argmax() == 3
  with pytest.raises(ValueError, match=r"2019; years there are: 2017, 2020, 2"):
    archive.sample(lons, lats, 2019)
