"""Captions of tiles: from maps to rows, resumed, and what stays unknown."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.prepare.captions import Captions
from fusar_jax.datasets.prepare.map_features import read_map_features
from fusar_jax.geo.georeference import Georeference, reproject
from fusar_jax.geo.land_cover import open_land_cover
from fusar_jax.tasks import captioning

UTM = "EPSG:32733"
NAME = "ESA_WorldCover_10m_2021_v200_S21E015_Map.tif"
MAP = Affine(10, 0, 500_000, 0, -10, 8_001_400)


@pytest.fixture
def write_map():
  """write_map(path, codes, crs=UTM): WorldCover codes below the scene."""

  def write(path, codes, crs=UTM, transform=MAP):
    codes = np.asarray(codes, np.uint8)
    with rasterio.open(
      path,
      "w",
      driver="GTiff",
      height=codes.shape[0],
      width=codes.shape[1],
      count=1,
      dtype="uint8",
      crs=crs,
      transform=transform,
      nodata=0,
    ) as file:
      file.write(codes[None])
    return path

  return write


@pytest.fixture
def world(tmp_path, write_map):
  """Crops in the north, trees in the south, a lake; below the whole scene."""
  codes = np.full((140, 140), 40)
  codes[90:] = 10
  codes[60:75, 40:90] = 80
  return write_map(tmp_path / NAME, codes)


def place_of(transform):
  return Georeference("affine", UTM, tuple(transform)[:6])


def captions_of(out):
  return {
    row.id: (row.answer, row.extra["described_from"])
    for row in read_manifest(out / "manifest.jsonl")
    if row.task == "captioning"
  }


def describing(world, features=None, **options):
  """The argument `read_captions`."""
  product = open_land_cover([world])
  return lambda scenes: Captions(
    product,
    read_map_features(features, scenes) if features else None,
    **options,
  )


def geojson(path, *features):
  """Writes (properties, geometry type, points in UTM) as GeoJSON."""
  found = []
  for properties, kind, points in features:
    x, y = np.array(points, float).T
    at = np.stack(reproject(UTM, "EPSG:4326", x, y), -1).tolist()
    coordinates = {"Polygon": [at], "LineString": at, "Point": at[0]}[kind]
    found.append(
      {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": kind, "coordinates": coordinates},
      }
    )
  collection = {"type": "FeatureCollection", "features": found}
  path.write_text(json.dumps(collection))
  return path


def square(x, y, side):
  return [(x, y), (x + side, y), (x + side, y - side), (x, y - side), (x, y)]


@pytest.fixture
def osm(tmp_path):
  """A house of 20 m, a road, a lake and a path that is no road."""
  everything = (500_000, 8_001_400), (501_400, 8_000_000)
  return geojson(
    tmp_path / "osm.geojson",
    ({"building": "yes", "height": "20 m"}, "Polygon",
     square(500_500, 8_000_700, 40)),
    ({"highway": "residential", "width": "10"}, "LineString", everything),
    ({"highway": "footway"}, "LineString", [p[::-1] for p in everything]),
    ({"natural": "water", "water": "lake"}, "Polygon",
     square(500_000, 8_001_400, 1_400)),
  )  # fmt: skip


def test_tiles_get_captions_and_resume_to_the_same_bytes(
  tmp_path, scene, world, osm, prepare, bytes_of, archive
):
  options = {
    "archive": archive,
    "read_captions": describing(world, [str(osm)], seed=3),
  }
  card = prepare(scene, tmp_path / "whole", **options)
  made = captions_of(tmp_path / "whole")
  assert card["captions"]["number"] == len(made) == card["rows"] == 6
  assert (card["captions"]["year"], card["captions"]["seed"]) == (2021, 3)
  assert card["tasks"] == ["captioning"]
  for answer, source in made.values():
    fields = captioning.parse(answer).fields
    assert set(fields) == set(captioning.FIELDS)
    assert source["land_cover"] == "worldcover"
    assert source["features"] == ["buildings", "roads", "water"]
    assert "runway" not in answer

  def stop(done, total):
    if done == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    prepare(scene, tmp_path / "out", on_tile=stop, **options)
  prepare(scene, tmp_path / "out", **options)
  assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
  options["read_captions"] = describing(world, [str(osm)], seed=4)
  with pytest.raises(FileExistsError, match="caption_seed: was 3, now 4"):
    prepare(scene, tmp_path / "out", **options)
  prepare(scene, tmp_path / "other", **options)
  other = captions_of(tmp_path / "other")
  assert other.keys() == made.keys()
  assert other != made


def test_labels_are_described_beside_their_own_rows(
  tmp_path, scene, world, prepare, labelled, write_csv
):
  card = prepare(
    scene,
    tmp_path / "out",
    read_labels=labelled(write_csv(tmp_path / "l.csv")),
    read_captions=describing(world, style="short"),
  )
  assert card["tasks"] == ["detection", "counting", "grounding", "captioning"]
  rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
  first = [row for row in rows if row.id.startswith("east/r000000_c000000")]
  fields = captioning.parse(first[-1].answer).fields
  assert fields["Distribution"] == "one tank and one ship, in two parts"
  assert fields["Buildings"] == "unknown"
  assert fields["Terrain"] == "unknown landform with crops"


def test_unmapped_tiles_get_none(tmp_path, scene, write_map, prepare):
  codes = np.zeros((140, 140))
  codes[:, 80:] = 40
  world = write_map(tmp_path / NAME, codes)
  card = prepare(scene, tmp_path / "out", read_captions=describing(world))
  skipped = card["scenes"][0]["skipped"]["no_land_cover"]
  made = captions_of(tmp_path / "out")
  assert 0 < skipped == 6 - len(made)
  for answer, source in made.values():
    assert 0.5 <= source["mapped"] <= 1
    assert ("not mapped" in answer) == (source["mapped"] < 1)


def test_maps_of_other_places(tmp_path, scene, write_map, prepare, write_scene):
  far = Affine(10, 0, 300_000, 0, -10, 7_000_000)
  world = write_map(tmp_path / NAME, np.full((9, 9), 40), transform=far)
  with pytest.raises(
    ValueError, match=r"of other places only; the scene spans"
  ):
    prepare(scene, tmp_path / "out", read_captions=describing(world))
  bare = write_scene(
    tmp_path / "bare.tif", crs=None, transform=Affine.identity()
  )
  with pytest.raises(ValueError, match="no georeference, so no land cover"):
    prepare(bare, tmp_path / "out", read_captions=describing(world))
  assert not (tmp_path / "out").exists()


class _Scene:
  """As much of a scene as the readers use."""

  height = width = 140
  place = place_of(MAP)
  path = "scene.tif"


def grounds(world, *files):
  found = Captions(
    open_land_cover([world]), read_map_features(list(map(str, files)), [_Scene])
  )
  return found.ground(_Scene.place, 140)


def test_features_lie_on_their_pixels(world, osm):
  ground = grounds(world, osm)
  y, x = np.nonzero(ground.height)
  assert (y.min(), y.max(), x.min(), x.max()) == (70, 73, 50, 53)
  assert ground.height.max() == 20
  assert ground.buildings == 1
  # The road runs along the diagonal; the footway is none.
  road = np.argwhere(ground.surface == 1)
  assert len(road) >= 140
  assert np.abs(road[:, 0] - road[:, 1]).max() <= 1
  assert ground.form == "lake shore"
  assert ground.mapped == {1}


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb"])
def test_files_of_gdal(tmp_path, world, osm, suffix):
  """Each kind in a file of its own, as Geofabrik has them."""
  pyogrio = pytest.importorskip("pyogrio")
  shapely = pytest.importorskip("shapely")
  features = json.loads(osm.read_text())["features"]
  for i, fclass in ((0, "building"), (1, "residential")):
    path = tmp_path / f"{fclass}{suffix}"
    shape = shapely.from_geojson(json.dumps(features[i]["geometry"]))
    pyogrio.raw.write(
      path,
      np.array([shapely.to_wkb(shape)], object),
      [np.array([fclass], object)],
      ["fclass"],
      geometry_type=features[i]["geometry"]["type"],
      crs="EPSG:4326",
      driver={".gpkg": "GPKG", ".shp": "ESRI Shapefile"}.get(
        suffix, "FlatGeobuf"
      ),
    )
  found = grounds(
    world, tmp_path / f"building{suffix}", tmp_path / f"residential{suffix}"
  )
  want = grounds(world, osm)
  np.testing.assert_array_equal(found.height != 0, want.height != 0)
  assert (found.surface == 1).sum() > 0
  named = read_map_features(
    [f"runway={tmp_path / f'residential{suffix}'}"], [_Scene]
  )
  assert named.groups == {"aeroways"}


def test_overture(tmp_path, world, osm):
  pa = pytest.importorskip("pyarrow")
  parquet = pytest.importorskip("pyarrow.parquet")
  shapely = pytest.importorskip("shapely")
  features = json.loads(osm.read_text())["features"]
  shapes = [
    shapely.to_wkb(shapely.from_geojson(json.dumps(f["geometry"])))
    for f in features
  ]
  tables = {
    "building": {"geometry": shapes[:1], "height": [20.0], "num_floors": [6]},
    "segment": {
      "geometry": shapes[1:3],
      "subtype": ["road", "road"],
      "class": ["residential", "footway"],
    },
    "water": {"geometry": shapes[3:], "subtype": ["lake"], "class": ["lake"]},
  }
  for name, columns in tables.items():
    parquet.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
  found = grounds(world, *(tmp_path / f"{name}.parquet" for name in tables))
  want = grounds(world, osm)
  np.testing.assert_array_equal(found.height, want.height)
  assert found.form == want.form == "lake shore"
  assert (found.surface == 1).sum() > 0


@pytest.mark.parametrize(
  ("properties", "points", "message"),
  [
    (
      {"color": "red"},
      [[15, -18]] * 4,
      r"has color\. Name the kind: KIND=a",
    ),
    ({"building": "yes"}, [[15, "x"]] * 4, "feature 0: could not convert"),
    ({"building": "yes"}, [15, -18], r"a\.geojson feature 0"),
  ],
)
def test_bad_features(tmp_path, world, properties, points, message):
  geometry = {"type": "Polygon", "coordinates": [points]}
  feature = {"type": "Feature", "properties": properties, "geometry": geometry}
  path = tmp_path / "a.geojson"
  collection = {"type": "FeatureCollection", "features": [feature]}
  path.write_text(json.dumps(collection))
  with pytest.raises(ValueError, match=message):
    grounds(world, path)


def test_a_large_lake_and_a_long_road_are_drawn(tmp_path, world):
  """Features far larger than the image, which lies inside of them."""
  path = geojson(
    tmp_path / "far.geojson",
    ({"natural": "water", "water": "river"}, "Polygon",
     square(420_000, 8_080_000, 160_000)),
    ({"highway": "primary"}, "LineString",
     [(440_000, 8_000_705), (560_000, 8_000_705)]),
  )  # fmt: skip
  ground = grounds(world, path)
  assert ground.form == "river banks"
  rows = np.unique(np.nonzero(ground.surface == 1)[0])
  assert len(rows) <= 4
  assert abs(rows.mean() - 69) < 4
