"""Shared fixtures of scene tests: a rotated raster, AlphaEarth, labels."""

import hashlib
import json
import warnings

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.prepare import preparation
from fusar_jax.datasets.prepare.labels import read_labels
from fusar_jax.datasets.prepare.sources import Look
from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.georeference import reproject

UTM = "EPSG:32733"
# 20 degrees off north, 5 m per pixel, south of the equator.
TURNED = (
  Affine.translation(500_300, 8_000_900)
  * Affine.rotation(20)
  * Affine.scale(5, -5)
)
HEIGHT, WIDTH = 100, 130
PLAN = preparation.Plan(look=Look(size=56), year=2023, min_valid=0.3)
BOXES = [("ship", 10, 20, 30, 40), ("tank", 50, 30, 62, 36)]


@pytest.fixture(scope="session")
def turned():
  return TURNED


@pytest.fixture(scope="session")
def usual():
  """The plan of most tests: tiles of 56 pixels, anchors of 2023."""
  return PLAN


@pytest.fixture(scope="session")
def boxes():
  """(label, x1, y1, x2, y2); half of the second is in the first tile."""
  return BOXES


@pytest.fixture(scope="session")
def write_scene():
  """write_scene(path, values=None, transform=..., crs=...): a GeoTIFF."""

  def write(path, values=None, transform=TURNED, crs=UTM, **options):
    if values is None:
      rng = np.random.default_rng(5)
      values = rng.gamma(2, 50, (HEIGHT, WIDTH)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # Without a geotransform on purpose.
      with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=values.shape[0],
        width=values.shape[1],
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        **options,
      ) as file:
        file.write(values[None])
    return path

  return write


@pytest.fixture
def scene(tmp_path, write_scene):
  return write_scene(tmp_path / "east.tif")


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
  """A tile whose first two bands say in which of its pixels one is."""
  folder = tmp_path_factory.mktemp("aef") / "2023"
  folder.mkdir()
  # 62 equal bands give vectors of about unit length.
  stored = np.full((64, 127, 127), 45, np.int8)
  stored[0] = np.arange(-63, 64)[None]
  stored[1] = np.arange(-63, 64)[:, None]
  with rasterio.open(
    folder / "tile.tif",
    "w",
    driver="GTiff",
    height=127,
    width=127,
    count=64,
    dtype="int8",
    crs=UTM,
    transform=Affine(10, 0, 500_000, 0, -10, 8_001_270),
    nodata=-128,
  ) as file:
    file.write(stored)
  with open_archive(folder) as opened:
    yield opened


@pytest.fixture(scope="session")
def prepare():
  """prepare(paths, out, plan=..., **options): the card."""

  def run(paths, out, plan=PLAN, **options):
    paths = paths if isinstance(paths, list) else [paths]
    origin = Origin("made for this test", "none stated")
    return preparation.prepare_scenes(paths, out, plan, origin, **options)

  return run


@pytest.fixture(scope="session")
def labelled():
  """labelled(path, **options): what `read_labels` of a run does."""
  return lambda path, **options: (
    lambda found: read_labels([path], found, **options)
  )


@pytest.fixture(scope="session")
def bytes_of():
  """bytes_of(folder): the hash of each file by its name."""
  return lambda folder: {
    path.relative_to(folder).as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


@pytest.fixture(scope="session")
def write_csv():
  """write_csv(path, boxes=..., name="east"): labels of one scene."""

  def write(path, boxes=BOXES, name="east"):
    lines = ["scene,x1,y1,x2,y2,label"]
    lines += [f"{name},{x1},{y1},{x2},{y2},{t}" for t, x1, y1, x2, y2 in boxes]
    path.write_text("\n".join(lines) + "\n")
    return path

  return write


@pytest.fixture(scope="session")
def write_geojson():
  """write_geojson(path, to_crs, crs=None): the same boxes as places."""

  def write(path, to_crs, crs=None):
    features = []
    for box in BOXES:
      ring = [TURNED * corner for corner in _corners(box)]
      x, y = (
        np.array(ring).T
        if to_crs == UTM
        else reproject(UTM, to_crs, *np.array(ring).T)
      )
      features.append(
        {
          "type": "Feature",
          "properties": {"class": box[0]},
          "geometry": {
            "type": "Polygon",
            "coordinates": [np.stack([x, y], -1).tolist()],
          },
        }
      )
    message = {"type": "FeatureCollection", "features": features}
    if crs:
      message["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(message))
    return path

  return write


def _corners(box):
  _, x1, y1, x2, y2 = box
  return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
