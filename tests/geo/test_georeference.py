"""Pixels to longitude and latitude: affines, control points, date line."""

import pickle

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from fusar_jax.geo import georeference
from fusar_jax.geo.georeference import Georeference

_NORTH_UP = Georeference(
  "affine", "EPSG:32616", (10.0, 0.0, 358410.0, 0.0, -10.0, 4906600.0)
)


def _random_affine(rng):
  """Any rotation, shear, mirror, pixel size and UTM zone; and degrees."""
  angle, shear = rng.uniform(0, 360), rng.uniform(-20, 20)
  size = 10 ** rng.uniform(-0.5, 2)
  transform = (
    Affine.translation(rng.uniform(3e5, 7e5), rng.uniform(1e6, 8e6))
    * Affine.rotation(angle)
    * Affine.shear(shear, 0)
    * Affine.scale(size, size * rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 2))
  )
  zone = int(rng.choice([32600, 32700])) + int(rng.integers(1, 61))
  if rng.random() < 0.2:
    zone = 4326
    transform = (
      Affine.translation(rng.uniform(-180, 180), rng.uniform(-60, 60))
      * Affine.rotation(angle)
      * Affine.scale(1e-4)
    )
  return Georeference("affine", f"EPSG:{zone}", tuple(transform)[:6])


def _image(path, **profile):
  with rasterio.open(
    path, "w", driver="GTiff", height=4, width=6, count=1, dtype="uint8",
    **profile,
  ) as file:  # fmt: skip
    file.write(np.ones((1, 4, 6), np.uint8))
  return rasterio.open(path)


def test_any_affine_maps_back_within_a_tenth_of_a_pixel():
  rng = np.random.default_rng(0)
  for _ in range(200):
    image = _random_affine(rng)
    rows, cols = rng.uniform(0, 500, size=(2, 20))
    back = image.to_pixel(*image.to_lonlat(rows, cols))
    np.testing.assert_allclose(back, (rows, cols), atol=0.01)


def test_corner_and_centre_of_a_pixel():
  """(0, 0) is the outer corner; the example of UTM zone 16, by hand."""
  lons, lats = _NORTH_UP.to_lonlat([0, 0.5], [0, 0.5])
  x, y = georeference.reproject("EPSG:4326", "EPSG:32616", lons, lats)
  np.testing.assert_allclose(x, [358410, 358415], atol=1e-6)
  np.testing.assert_allclose(y, [4906600, 4906595], atol=1e-6)


def test_it_travels():
  for image in (_NORTH_UP, _grid_of_gcps()):
    assert pickle.loads(pickle.dumps(image)) == image
    assert Georeference.from_json(image.to_json()) == image


def _grid_of_gcps(bend=0.0, west=10.0):
  rows, cols = (v.ravel() for v in np.mgrid[0:1001:200, 0:1001:200] * 1.0)
  x = west + cols * 1e-4 + bend * np.sin(rows / 50)
  y = 50 - rows * 1e-4 + bend * np.cos(cols / 70)
  points = zip(rows, cols, x, y, strict=True)
  return Georeference(
    "gcps",
    "EPSG:4326",
    (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    tuple(tuple(map(float, point)) for point in points),
  )


@pytest.mark.parametrize("bend", [0.0, 1e-3])
def test_control_points_lie_where_they_say(bend):
  """A bent image is beyond the polynomial: the spline passes through them."""
  image = _grid_of_gcps(bend)
  rows, cols, lons, lats = np.array(image.gcps).T
  np.testing.assert_allclose(image.to_lonlat(rows, cols), (lons, lats))
  found = image.to_pixel(lons, lats)
  np.testing.assert_allclose(found, (rows, cols), atol=0.01)


def test_the_date_line_is_no_edge():
  """Control points or an affine across it; the ring has no jump."""
  affine = (1e-4, 0.0, 179.95, 0.0, -1e-4, 50.0)
  for image in (
    Georeference("affine", "EPSG:4326", affine),
    Georeference("affine", "EPSG:32601", (8.0, 0, 282000, 0, -8.0, 5542000)),
    _grid_of_gcps(west=179.95),
  ):
    lons, lats = image.to_lonlat([10, 10], [10, 900])
    assert 179 < lons[0] <= 180
    assert -180 <= lons[1] < -179
    back = image.to_pixel(lons, lats)
    np.testing.assert_allclose(back, ([10, 10], [10, 900]), atol=1e-3)
    assert np.ptp(image.footprint(1000, 1000)[:, 0]) < 1


def test_ring_and_ground_sampling_distance():
  ring = _NORTH_UP.footprint(97, 97)
  np.testing.assert_array_equal(ring[0], ring[-1])
  assert ring.shape == (65, 2)
  x, y = georeference.reproject("EPSG:4326", "EPSG:32616", *ring.T)
  np.testing.assert_allclose([x.min(), x.max()], [358410, 359380], atol=1e-3)
  np.testing.assert_allclose([y.min(), y.max()], [4905630, 4906600], atol=1e-3)
  # UTM is 0.9998 of the ground here.
  distance = _NORTH_UP.ground_sampling_distance(97, 97)
  np.testing.assert_allclose(distance, (10, 10), rtol=1e-3)


def test_places_without_a_projection_are_nan():
  """One invalid point does not invalidate its neighbours."""
  rows, _ = _NORTH_UP.to_pixel([-88.77, 0, np.nan, -88.77], [44.2, 95, 0, 44.2])
  assert np.isfinite(rows).tolist() == [True, False, False, True]


def test_of_an_open_dataset(tmp_path):
  affine = Affine(*_NORTH_UP.transform)
  with _image(tmp_path / "a.tif", crs="EPSG:32616", transform=affine) as file:
    assert Georeference.of(file) == _NORTH_UP
  gcps = [
    GroundControlPoint(row, col, 10 + col / 100, 50 - row / 100)
    for row in (0, 4)
    for col in (0, 6)
  ]
  with _image(tmp_path / "g.tif", crs="EPSG:4326", gcps=gcps) as file:
    image = Georeference.of(file)
  assert image.kind == "gcps"
  np.testing.assert_allclose(image.to_lonlat(2, 3), (10.03, 49.98))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_no_place_is_none(tmp_path):
  with _image(tmp_path / "plain.tif") as file:
    assert Georeference.of(file) is None
  with _image(tmp_path / "crs.tif", crs="EPSG:4326") as file:
    assert Georeference.of(file) is None
  far = Affine(0.87, 0, 0, 0, 50, 0)
  with (
    _image(tmp_path / "far.tif", crs="EPSG:4326", transform=far) as file,
    pytest.warns(UserWarning, match=r"far\.tif.*off the Earth"),
  ):
    assert Georeference.of(file) is None


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"kind": "tps"}, '"affine", "gcps" or "rpc"'),
    ({"kind": "rpc"}, "0 coefficients for kind 'rpc'; an rpc has 90"),
    ({"crs": "EPSG:1"}, "EPSG:1"),
    ({"transform": (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)}, "no inverse"),
    ({"transform": (1.0, 0.0, np.nan, 0.0, 1.0, 0.0)}, "not finite"),
    ({"kind": "gcps"}, "0 control points"),
    ({"kind": "gcps", "gcps": ((0.0, 0.0, 1.0, 1.0),) * 2}, "at least 3"),
  ],
)
def test_impossible_georeferences_are_rejected(change, message):
  values = {**_NORTH_UP.to_json(), **change}
  with pytest.raises(ValueError, match=message):
    Georeference.from_json(values)


def test_real_scenes(shared):
  """Round trips; a slant-range swath's spline passes its control points."""
  for name, kind in {
    "umbra_gec/umbra_mount_yasur.tiff": "affine",
    "port_la_s1/2021-01-05.tif": "affine",
    "rioxarray/cint16.tif": "gcps",
  }.items():
    with rasterio.open(shared / "data/georef" / name) as file:
      image, (height, width) = Georeference.of(file), file.shape
    assert image.kind == kind
    rows, cols = np.mgrid[0 : height : height / 9, 0 : width : width / 9]
    back = image.to_pixel(*image.to_lonlat(rows, cols))
    np.testing.assert_allclose(back, (rows, cols), atol=0.01)
  rows, cols, lons, lats = np.array(image.gcps).T
  np.testing.assert_allclose(
    image.to_pixel(lons, lats), (rows, cols), atol=0.01
  )
