"""Tiles of scenes: pixels, anchors, metadata, and what is skipped."""

import dataclasses
import io

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint
from rich.console import Console

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.prepare.scene_names import names_of
from fusar_jax.datasets.prepare.sources import Look, read_stretches
from fusar_jax.datasets.prepare.summary import print_summary
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.geo.georeference import Georeference, reproject

UTM = "EPSG:32733"
HEIGHT, WIDTH, SIZE = 100, 130, 56
CORNER = 500_000, 8_001_270  # Of the AlphaEarth tile.


def _look(plan, **options):
  return dataclasses.replace(plan, look=Look(**{"size": SIZE, **options}))


def test_anchors_lie_on_their_pixels(tmp_path, scene, archive, prepare):
  """Each vector says its own pixel, and that is where its position leads."""
  out = tmp_path / "out"
  card = prepare(scene, out, archive=archive)
  assert card["alphaearth"]["tiles"] == ["tile.tif"]
  assert "Google DeepMind" in card["alphaearth"]["attribution"]
  with rasterio.open(scene) as file:
    place = Georeference.of(file)
  rows = read_manifest(out / "manifest.jsonl")
  assert len(rows) == 2 * 3
  for row in rows:
    anchors = read_anchors(row.anchors[0])
    top, left, height, width = row.extra["metadata"]["window"]
    assert (height, width) == (SIZE, SIZE)
    lons, lats = place.to_lonlat(
      top + anchors.positions[:, 0] * height,
      left + anchors.positions[:, 1] * width,
    )
    x, y = reproject("EPSG:4326", UTM, lons, lats)
    given = anchors.features[:, :2]
    stored = np.round(np.sign(given) * np.sqrt(np.abs(given)) * 127.5) + 63
    cols, lines = (x - CORNER[0]) / 10, (CORNER[1] - y) / 10
    np.testing.assert_allclose(stored[:, 0] + 0.5, cols, atol=0.501)
    np.testing.assert_allclose(stored[:, 1] + 0.5, lines, atol=0.501)
    # 56 pixels of 5 m, turned, have about 28 x 28 nodes 10 m apart.
    assert 600 < len(anchors) < 900


def test_pixels_and_metadata(tmp_path, scene, prepare, turned):
  """A tile is the scene's window through the one recorded stretch."""
  out = tmp_path / "out"
  card = prepare(scene, out)
  stretch = read_stretches(out / "dataset.json")["east"][0]
  with rasterio.open(scene) as file:
    values = file.read(1)
  row = read_manifest(out / "manifest.jsonl")[-1]
  assert row.id == "east/r000044_c000074-captioning"
  expected = stretch.apply(values[44:100, 74:130], np.True_)
  np.testing.assert_array_equal(np.asarray(Image.open(row.images[0])), expected)
  known = row.extra["metadata"]
  assert known["ground_sampling_distance"] == pytest.approx([5, 5], rel=2e-3)
  ring = np.array(known["footprint"])
  x, y = reproject("EPSG:4326", UTM, *ring.T)
  np.testing.assert_allclose(
    np.stack([x[2], y[2]]), turned * (130, 100), atol=0.02
  )
  assert card["scenes"][0]["kept"] == 6
  assert card["license"] == "none stated"


def test_mostly_nodata_is_skipped_and_counted(
  tmp_path, prepare, write_scene, usual
):
  values = np.full((HEIGHT, WIDTH), 7, np.uint16)
  values[:, :60] = 0
  path = write_scene(tmp_path / "a.tif", values, nodata=0)
  plan = dataclasses.replace(usual, min_valid=0.5)
  reported = prepare(path, tmp_path / "out", plan)["scenes"][0]
  # Columns 0..56 hold nothing, 56..112 and 74..130 do.
  assert (reported["kept"], reported["skipped"]) == (4, {"nodata": 2})
  assert reported["nodata"]["origin"] == "declared"
  reported = prepare(path, tmp_path / "all", _look(usual, nodata="none"))[
    "scenes"
  ][0]
  assert (reported["kept"], reported["nodata"]["origin"]) == (6, "user")


def test_nothing_left_is_an_error_that_can_be_mended(
  tmp_path, prepare, write_scene, usual
):
  path = write_scene(tmp_path / "a.tif", np.zeros((60, 60), "u2"), nodata=0)
  message = r"a\.tif \(60 x 60 pixels\): of 4 tiles 4 mostly nodata"
  with pytest.raises(ValueError, match=message):
    prepare(path, tmp_path / "out")
  # The folder is free again: other options are no contradiction.
  card = prepare(path, tmp_path / "out", _look(usual, nodata="none"))
  assert card["images"] == 4
  assert len(card["identical_images"]) == 1
  # 60 pixels in tiles of 56: one sample rather than four.
  assert card["scenes"][0]["shared_by_two"] == pytest.approx(52 / 56, abs=1e-3)


def test_a_scene_smaller_than_a_tile(
  tmp_path, archive, prepare, write_scene, labelled, write_csv, turned
):
  """It is one tile of its own size, with boxes and anchors of that size."""
  path = write_scene(tmp_path / "a.tif", np.ones((30, 40), "u2"))
  labels = labelled(write_csv(tmp_path / "l.csv", [("ship", 4, 5, 9, 8)], "a"))
  reported = prepare(
    path, tmp_path / "out", read_labels=labels, archive=archive
  )["scenes"][0]
  assert (reported["kept"], reported["skipped"]) == (1, {})
  pixels = np.asarray(Image.open(next((tmp_path / "out").rglob("*.png"))))
  assert pixels.shape == (30, 40)
  assert (pixels == 128).all()  # Constant: in the middle.
  row = read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
  assert row.coordinate_size == (30, 40)
  np.testing.assert_allclose(row.extra["boxes"], [[4, 5, 9, 8]])
  # 150 x 200 m: a grid of about 15 x 20 points.
  assert 250 < len(read_anchors(row.anchors[0])) < 350
  ring = np.array(row.extra["metadata"]["footprint"])
  x, y = reproject("EPSG:4326", UTM, *ring.T)
  np.testing.assert_allclose([x[2], y[2]], turned * (40, 30), atol=0.02)


def test_without_georeference_there_are_no_anchors(
  tmp_path, archive, prepare, write_scene, usual
):
  path = write_scene(tmp_path / "a.tif", transform=None, crs=None)
  card = prepare(path, tmp_path / "out", archive=archive)
  assert card["alphaearth"] is None
  assert "no georeference" in card["scenes"][0]["notes"][0]
  row = read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
  assert row.anchors == (None,)
  assert row.extra["metadata"]["footprint"] is None
  plan = dataclasses.replace(usual, require_anchors=True)
  with pytest.raises(ValueError, match="6 no AlphaEarth below it"):
    prepare(path, tmp_path / "none", plan, archive=archive)


def test_years_and_places_are_checked_first(
  tmp_path, scene, archive, prepare, write_scene, usual
):
  for year, message in ((2019, "years there are: 2023"), (None, "2023")):
    plan = dataclasses.replace(usual, year=year)
    with pytest.raises(ValueError, match=message):
      prepare(scene, tmp_path / "out", plan, archive=archive)
  far = write_scene(tmp_path / "far.tif", crs="EPSG:32734")
  with pytest.raises(ValueError, match=r"far\.tif: .* of other places only"):
    prepare(far, tmp_path / "out", archive=archive)
  assert not (tmp_path / "out").exists()


def test_another_sampling(tmp_path, scene, prepare, labelled, write_csv, usual):
  """10 m from 5 m: half as many pixels, and boxes half as wide."""
  path = write_csv(tmp_path / "labels.csv")
  plan = _look(usual, size=50, ground_sampling_distance=10)
  prepare(scene, tmp_path / "out", plan, read_labels=labelled(path))
  rows = {r.id: r for r in read_manifest(tmp_path / "out" / "manifest.jsonl")}
  assert len(rows) == 2 * 2 * 3
  row = rows["east/r000000_c000000-ship-detection"]
  np.testing.assert_allclose(row.extra["boxes"], [[5, 10, 15, 20]], atol=0.03)
  assert row.extra["metadata"]["ground_sampling_distance"] == pytest.approx(
    [10, 10], rel=1e-3
  )


def test_a_stretch_is_replayed_exactly(
  tmp_path, scene, prepare, write_scene, write_geojson, usual
):
  """On another scene the recorded numbers are used, not fitted anew."""
  prepare(scene, tmp_path / "one")
  stretches = read_stretches(tmp_path / "one" / "dataset.json")
  with rasterio.open(scene) as file:
    bright = write_scene(tmp_path / "bright.tif", 3 * file.read(1))
  prepare(bright, tmp_path / "two", _look(usual, stretches=stretches))
  again = read_stretches(tmp_path / "two" / "dataset.json")
  assert again["bright"] == stretches["east"]
  image = Image.open(tmp_path / "two/images/bright/r000000_c000000.png")
  own = Image.open(tmp_path / "one/images/east/r000000_c000000.png")
  assert np.asarray(image).mean() > np.asarray(own).mean() + 20
  decibels = write_scene(
    tmp_path / "db.tif",
    np.linspace(-30, -1, 13000, dtype="f4").reshape(100, -1),
  )
  with pytest.raises(ValueError, match="holds db, but the stretch to replay"):
    prepare(decibels, tmp_path / "three", _look(usual, stretches=stretches))
  with pytest.raises(ValueError, match="no stretches"):
    read_stretches(write_geojson(tmp_path / "l.json", UTM))


def test_composites(tmp_path, prepare, turned, usual):
  path = tmp_path / "two.tif"
  rng = np.random.default_rng(0)
  values = rng.gamma(2, 50, (2, 60, 60)).astype(np.float32)
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=60,
    width=60,
    count=2,
    dtype="float32",
    crs=UTM,
    transform=turned,
  ) as file:
    file.write(values)
    file.set_band_description(1, "VV")
    file.set_band_description(2, "VH")
  card = prepare(path, tmp_path / "out", _look(usual, bands="VV, VH,VV/VH"))
  assert card["scenes"][0]["bands_shown"] == ["VV", "VH", "VV/VH"]
  pixels = np.asarray(Image.open(next((tmp_path / "out").rglob("*.png"))))
  assert pixels.shape == (SIZE, SIZE, 3)
  assert not np.array_equal(pixels[..., 0], pixels[..., 1])
  with pytest.raises(ValueError, match=r"two\.tif: no band 'HH'"):
    prepare(path, tmp_path / "hh", _look(usual, bands="HH"))
  with pytest.raises(ValueError, match="one band, two or three"):
    prepare(path, tmp_path / "hh", _look(usual, bands="VV,VH,VV,VH"))


def test_two_bands_of_two_files(tmp_path, prepare, write_scene, usual):
  """VV,VH shows VV, VH and their ratio, of the file given and its sibling."""
  vv, vh = (write_scene(tmp_path / f"a_{name}.tif") for name in ("VV", "VH"))
  card = prepare(vv, tmp_path / "out", _look(usual, bands="VV,VH"))
  (scene,) = card["scenes"]
  assert scene["bands_shown"] == ["VV", "VH", "VV/VH"]
  alone = prepare(vv, tmp_path / "alone")["scenes"][0]
  assert scene["sha256"] != alone["sha256"]
  # The replayed stretch names the bands, so the sibling is opened for it too.
  stretches = read_stretches(tmp_path / "out" / "dataset.json")
  again = prepare(vh, tmp_path / "again", _look(usual, stretches=stretches))
  assert again["scenes"][0]["bands_shown"] == ["VV", "VH", "VV/VH"]
  pixels = [
    next((tmp_path / out / "images").rglob("*.png")).read_bytes()
    for out in ("out", "again")
  ]
  assert pixels[0] == pixels[1]


def test_corrupt_rasters(tmp_path, scene, prepare, write_scene):
  """Rejected by name; or, if so wished, left out and listed."""
  text = tmp_path / "text.tif"
  text.write_text("no raster")
  cut = write_scene(
    tmp_path / "cut.tif",
    np.tile(np.arange(130, dtype="f4"), (100, 1)),
    blockysize=8,
  )
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
  for bad in (text, cut):
    with pytest.raises(ValueError, match=bad.name):
      prepare([scene, bad], tmp_path / bad.stem)
  card = prepare([scene, text, cut], tmp_path / "out", drop_rejected=True)
  reported = (tmp_path / "out" / "rejected.txt").read_text()
  assert "text.tif" in reported
  assert "cut.tif" in reported
  assert card["rejected"] == len(reported.splitlines())
  assert card["images"] >= 6
  with pytest.raises(FileNotFoundError, match=r"none\.tif"):
    prepare([scene, tmp_path / "none.tif"], tmp_path / "x", drop_rejected=True)


def test_names_tell_scenes_apart(
  tmp_path, prepare, write_scene, labelled, write_csv
):
  one, two = (
    write_scene(tmp_path / folder / "vv.tif") for folder in ("a b", "c")
  )
  assert names_of([one, two]) == ["a_b-vv", "c-vv"]
  with pytest.raises(ValueError, match="named twice"):
    names_of([one, one.parent / ".." / "a b" / "vv.tif"])
  assert names_of([tmp_path / "...tif"]) == ["scene"]
  assert len(names_of([tmp_path / f"{'é' * 120}.tif"])[0].encode()) <= 150
  path = write_csv(tmp_path / "labels.csv", name="vv")
  with pytest.raises(ValueError, match="'vv' may be a_b-vv or c-vv"):
    prepare([one, two], tmp_path / "out", read_labels=labelled(path))


def test_anchors_need_known_positions(
  tmp_path, prepare, archive, write_scene, usual
):
  """One control point is 100 m off: anchors only if that may be."""
  points = [
    GroundControlPoint(
      row, col, x=500_300 + 5 * col + 100 * (row == col == 60),
      y=8_000_900 - 5 * row,
    )
    for row in range(0, 121, 30)
    for col in range(0, 121, 30)
  ]  # fmt: skip
  scene = write_scene(tmp_path / "a.tif", transform=None, gcps=points)
  card = prepare(scene, tmp_path / "any", archive=archive)
  (known,) = card["scenes"]
  bound = known["position_error"]["metres"]
  assert 60 < bound < 140
  assert f"positions may be off by {bound:.0f} m" in known["notes"][-1]
  assert known["anchors"]["tiles"] == 6
  for limit, tiles in ((50, 0), (500, 6)):
    plan = dataclasses.replace(usual, max_anchor_error=limit)
    card = prepare(scene, tmp_path / str(limit), plan, archive=archive)
    assert card["scenes"][0]["anchors"]["tiles"] == tiles
    assert card["settings"]["max_anchor_error"] == limit
    console = Console(file=io.StringIO(), width=200)
    print_summary(card, tmp_path, console)
    warned = "no anchors, since its positions may be off by more than 50 m"
    assert (warned in console.file.getvalue()) == (limit == 50)
