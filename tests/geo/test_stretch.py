"""The stretch: a complete record with reproducible results."""

import json

import numpy as np
import pytest

from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import Stretch, fit_stretch, fit_stretches


def _raster(folder, array, **options):
  np.save(folder / "a.npy", array)
  return open_raster(folder / "a.npy", **options)


def test_percentiles_over_valid_pixels(tmp_path):
  """Decibels of 0..100 without the zeros of a wedge."""
  decibels = np.linspace(0, 100, 5000, dtype=np.float32).reshape(50, 100)
  stored = np.concatenate([np.zeros((50, 100)), 10 ** (decibels / 20)])
  with _raster(tmp_path, stored) as raster:
    assert raster.nodata.origin == "guessed"
    found = fit_stretch(raster, percentiles=(5, 90))
  assert found.low == pytest.approx(5, abs=1e-2)
  assert found.high == pytest.approx(90, abs=1e-2)
  assert found.pixels == 5000


def test_amplitude_intensity_and_decibels_look_the_same(tmp_path, speckle):
  """Amplitude and intensity give the same decibels."""
  amplitude = speckle(60, 60) / 1e3
  images = []
  for stored, quantity in (
    (amplitude, "amplitude"),
    (amplitude**2, "intensity"),
    (20 * np.log10(amplitude), "db"),
  ):
    with _raster(tmp_path, stored, quantity=quantity) as raster:
      values, valid = raster.read()
      images.append(fit_stretch(raster).apply(values[0], valid).astype(int))
  assert np.ptp(images[0]) == 255
  assert abs(images[0] - images[1]).max() <= 1
  assert abs(images[0] - images[2]).max() <= 1


def test_the_linear_curve_is_of_amplitude(tmp_path):
  """Amplitudes 0..100 become 0..255, also from a file of intensities."""
  amplitude = np.linspace(0, 100, 256, dtype=np.float32).reshape(16, 16)
  with _raster(tmp_path, amplitude**2, quantity="intensity") as raster:
    found = fit_stretch(raster, percentiles=(0, 100), curve="amplitude")
    values, valid = raster.read()
  image = found.apply(values[0], valid)
  np.testing.assert_array_equal(image.ravel(), np.arange(256))


def test_replay_on_another_scene_is_exact(tmp_path, shared):
  """Through JSON text, to the last bit, on other pixels."""
  scene = shared / "data/georef/sen1floods11/S1/Spain_7370579_S1Hand.tif"
  with open_raster(scene) as raster:
    found = fit_stretches(raster, "VV,VH,VV/VH")
    values, valid = raster.read(bands=[s.band for s in found])
  back = [Stretch.from_json(json.loads(json.dumps(s.to_json()))) for s in found]
  assert tuple(back) == found
  other = np.roll(values, 7, axis=1) - 3
  for one, again, plane in zip(found, back, other):
    image = one.apply(plane, valid)
    np.testing.assert_array_equal(image, again.apply(plane, valid))
    assert np.ptp(image) == 255
  # The replay uses the record instead of a new fit.
  refitted = np.percentile(other[0], found[0].percentiles)
  assert refitted[0] != pytest.approx(found[0].low, abs=1)


@pytest.mark.parametrize("value", [7.0, 0.0])
@pytest.mark.parametrize("curve", ["db", "amplitude"])
def test_constant_images(tmp_path, value, curve):
  with _raster(tmp_path, np.full((9, 9), value), nodata="none") as raster:
    found = fit_stretch(raster, curve=curve)
    image = found.apply(*(part[0] for part in (raster.read()[0], [True])))
  assert found.low == found.high
  expected = 128 if value or curve == "amplitude" else 0
  assert (image == expected).all()


def test_a_worked_example():
  stretch = Stretch("VV", "db", "db", -20.0, 0.0)
  values = np.float32([[-30, -20, -10, 0, 5, -10]])
  valid = np.array([[True] * 5 + [False]])
  assert stretch.apply(values, valid).tolist() == [[0, 0, 128, 255, 255, 0]]


def test_refusals(tmp_path, speckle):
  with _raster(tmp_path, speckle(9, 9)) as raster:
    with pytest.raises(ValueError, match="rising order"):
      fit_stretch(raster, percentiles=(99, 1))
    with pytest.raises(ValueError, match="curve must be one of"):
      fit_stretch(raster, curve="log")
    with pytest.raises(ValueError, match="no band 'VV'"):
      fit_stretch(raster, "VV")
    with pytest.raises(ValueError, match="one band or three"):
      fit_stretches(raster, "1,1")
  good = Stretch("VV", "db", "db", -20.0, 0.0).to_json()
  for change, message in (
    ({"low": float("nan")}, "finite numbers"),
    ({"low": 5.0}, "rising order"),
    ({"quantity": "phase"}, "expected one of"),
    ({"low": None}, "not as it was written"),
    ({"more": 1}, "expected an object"),
    ({"percentiles": [1, 50, 99]}, "expected two percentiles"),
  ):
    with pytest.raises(ValueError, match=message):
      Stretch.from_json(good | change)
  with pytest.raises(ValueError, match="expected an object"):
    Stretch.from_json([])
