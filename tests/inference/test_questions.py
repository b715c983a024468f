"""`detect`, `count`, `describe` and `ask_batch` on pictures and rasters."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

import fusar_jax
from fusar_jax.inference.detections import Detections
from fusar_jax.inference.pictures import read_picture
from fusar_jax.tasks import captioning, counting, detection


@pytest.fixture(scope="module")
def model():
  return fusar_jax.load("tiny-base")


@pytest.fixture
def raster(tmp_path):
  """uint16 amplitudes of a calm sea with one bright ship, georeferenced."""
  values = np.random.default_rng(0).rayleigh(40, (150, 200))
  values[60:66, 80:120] = 900
  path = tmp_path / "scene.tif"
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    dtype="uint16",
    count=1,
    height=150,
    width=200,
    crs="EPSG:32632",
    transform=Affine(10, 0, 500_000, 0, -10, 5_000_000),
  ) as file:
    file.write(values.astype(np.uint16), 1)
  return path


def test_the_ship_of_a_raster_is_found_where_it_is(model, raster):
  found = model.detect(raster, ["ship", "plane"])
  assert found.errors == {}
  assert set(found.answers) == {"ship", "plane"}
  assert "ship" in found.labels
  x1, y1, x2, y2 = found.boxes[found.labels.index("ship")]
  # Within a tile of the vision tower, which is 28 of 168 pixels wide.
  assert abs((x1 + x2) / 2 - 100) < 24
  assert abs((y1 + y2) / 2 - 63) < 18
  feature = found.to_geojson()["features"][found.labels.index("ship")]
  lon, lat = np.mean(feature["geometry"]["coordinates"][0][:4], axis=0)
  assert (lon, lat) == pytest.approx((9.0127, 45.147), abs=0.004)
  assert np.asarray(found.draw()).shape == (150, 200, 3)


def test_short_forms_ask_the_model_s_own_questions(model, raster):
  pixels = read_picture(raster).pixels
  asked = [
    (pixels, counting.question("ship"), None),
    (pixels, captioning.question(), None),
    (pixels, detection.question("ship"), None),
  ]
  count, caption, boxes = model.ask_batch(asked)
  # Together or one by one.
  assert model.ask(pixels, asked[0][1]) == count
  assert model.count(raster, "ship") == int(count)
  assert model.describe(raster) == caption
  assert model.detect(raster, "ship").answers == {"ship": boxes}
  assert model.ask_batch([]) == []


def test_an_answer_without_a_number(model, raster, monkeypatch):
  monkeypatch.setattr(type(model), "ask_batch", lambda *a, **k: ["a few"])
  with pytest.raises(ValueError, match="is no count: no number in 'a few'"):
    model.count(raster, "ship")


def test_arrays_are_stretched_as_their_file_is(raster, tmp_path):
  with rasterio.open(raster) as file:
    values = file.read(1)
  pixels, place = read_picture(raster)
  assert place is not None
  assert pixels.dtype == np.uint8
  # 1 % of the pixels are white: those of the 99th percentile on.
  assert (pixels == 255).mean() == pytest.approx(0.01, abs=0.006)
  np.testing.assert_array_equal(read_picture(values).pixels, pixels)
  as_float = read_picture(values.astype(np.float32)).pixels
  np.testing.assert_array_equal(as_float, pixels)
  grey = read_picture(pixels[..., 0])
  np.testing.assert_array_equal(grey.pixels, pixels)
  Image.fromarray(pixels).save(tmp_path / "scene.png")
  np.testing.assert_array_equal(
    read_picture(tmp_path / "scene.png").pixels, pixels
  )
  with pytest.raises(ValueError, match=r"float32\[3, 4, 5\]"):
    read_picture(np.zeros((3, 4, 5), np.float32))


def test_pixels_where_no_place_is_known():
  found = Detections(
    np.float32([[1, 2, 3, 5]]), ("ship",), {}, {}, np.zeros((9, 9, 3), np.uint8)
  )
  (feature,) = found.to_geojson()["features"]
  assert feature["geometry"]["coordinates"][0][2] == [3, 5]
  assert len(found) == 1
