"""Rasters, anchors, and AlphaEarth tiles, indexes and cached blocks."""

import csv
import dataclasses
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from target import Target, array_bytes, as_json, lazy, written

_RNG = np.random.default_rng(0)
_AFFINE = rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)
_URL = "https://127.0.0.1:1/aef_2024.tif"
_ROW = {
  "path": "a_2024.tif", "year": 2024, "crs": "EPSG:32616", "utm_west": 5e5,
  "utm_south": 4e6, "utm_east": 500400.0, "utm_north": 4000320.0,
}  # fmt: skip


def write_raster(path: Path, bands=1, dtype="uint16", **options) -> Path:
  given: dict[str, Any] = {
    "driver": "GTiff",
    "crs": "EPSG:32616",
    "transform": _AFFINE,
    "nodata": 0,
    **options,
  }
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with rasterio.open(
      path, "w", height=32, width=40, count=bands, dtype=dtype,
      **given,
    ) as file:  # fmt: skip
      file.write(_RNG.integers(1, 200, (bands, 32, 40)).astype(dtype))
  return path


def _rasters(folder: Path) -> list[bytes]:
  path = folder / "a"
  points = [
    GroundControlPoint(row, col, x=8 + col / 1e3, y=54 - row / 1e3 + col / 1e4)
    for row in (0, 16, 31)
    for col in (0, 20, 39)
  ]
  gcps = {"gcps": points, "crs": "EPSG:4326", "transform": None}
  plain = {"crs": None, "transform": None, "nodata": None}
  tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
  return [
    write_raster(path, *kind, **options).read_bytes()
    for kind, options in (
      ((1, "uint16"), {}),
      ((2, "float32"), tiled),
      ((1, "complex64"), {"compress": "deflate"}),
      ((1, "uint16"), gcps),
      ((1, "uint8"), plain | {"driver": "PNG"}),
      ((1, "uint8"), plain | {"driver": "JPEG"}),
      ((1, "uint8"), plain | {"driver": "NITF"}),
    )
  ]


def _read_raster(path: Path) -> None:
  from fusar_jax.geo.rasters import open_raster
  from fusar_jax.geo.stretch import fit_stretches

  with open_raster(path) as raster:
    raster.read()
    fit_stretches(raster, raster.bands[:1])
    json.dumps(raster.to_json(), allow_nan=False)
    if raster.georeference:
      raster.georeference.footprint(raster.height, raster.width)


def _beside_raster(path: Path) -> None:
  """The input is next to a valid raster, which names no part of it."""
  _read_raster(path.with_name("a.img"))


def _envi(folder: Path) -> Path:
  return write_raster(folder / "a.img", driver="ENVI", nodata=None)


def _statistics(folder: Path) -> list[bytes]:
  return [
    b"<PAMDataset><SRS>EPSG:32616</SRS><GeoTransform>5e5, 10, 0, 4e6, 0, -10"
    b"</GeoTransform><Metadata><MDI key='A'>b</MDI>"
    b"</Metadata><Metadata domain='OVERVIEWS'></Metadata><PAMRasterBand"
    b" band='1'><NoDataValue>0</NoDataValue><Offset>1</Offset><Scale>2</Scale>"
    b"<Description>VV</Description></PAMRasterBand></PAMDataset>"
  ]


def _write_tile(path: Path) -> Path:
  with rasterio.open(
    path, "w", driver="GTiff", height=16, width=16, count=64, dtype="int8",
    crs="EPSG:32616", transform=_AFFINE, nodata=-128,
  ) as file:  # fmt: skip
    file.write(_RNG.integers(-127, 127, (64, 16, 16)).astype(np.int8))
    file.descriptions = [f"A{band:02d}" for band in range(64)]
  return path


def _use_tile(reader) -> None:
  header = reader.header
  height, width = min(header.height, 16), min(header.width, 16)
  values = reader.read(0, 0, height, width)
  reader.vectors(values.reshape(64, -1))
  reader.close()


def _read_tile(path: Path) -> None:
  from fusar_jax.geo.alphaearth_tiles import TileReader

  _use_tile(TileReader(str(path)))


def _read_cached(path: Path) -> None:
  """A tile whose header and only window are in the cache, one of them damaged.

  Its server does not answer, so a damaged one ends in an error of GDAL.
  """
  from fusar_jax.geo.alphaearth_tiles import TileReader
  from fusar_jax.geo.block_cache import BlockCache

  _use_tile(TileReader(_URL, BlockCache(path.parent, 10**6)))


def _names() -> tuple[str, str]:
  from fusar_jax.geo.alphaearth_tiles import gdal_path

  key = hashlib.sha256(gdal_path(_URL).encode()).hexdigest()
  return f"{key[:24]}.json", f"{key[:24]}_0_0_16_16.npy"


def _header(folder: Path) -> bytes:
  from fusar_jax.geo.alphaearth_tiles import TileReader, gdal_path

  reader = TileReader(str(_write_tile(folder / "t_2024.tif")))
  (folder / "t_2024.tif").unlink()
  path = hashlib.sha256(gdal_path(_URL).encode()).hexdigest()
  header = dataclasses.asdict(reader.header)
  return json.dumps({"path": path, "header": header}).encode()


def _block(folder: Path) -> bytes:
  content = array_bytes(_RNG.integers(-99, 99, (64, 16, 16)).astype(np.int8))
  return content + hashlib.sha256(content).digest()


def _put_header(folder: Path) -> None:
  (folder / _names()[0]).write_bytes(_header(folder))


def _put_block(folder: Path) -> None:
  (folder / _names()[1]).write_bytes(_block(folder))


def anchors(folder: Path) -> list[bytes]:
  import io

  features = _RNG.normal(size=(5, 64))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  arrays = {
    "features": features.astype(np.float32),
    "positions": _RNG.random((5, 2)).astype(np.float32),
  }
  found = []
  for save in (np.savez, np.savez_compressed):
    file = io.BytesIO()
    save(file, **arrays)
    found.append(file.getvalue())
  return found


def _anchor_table(folder: Path) -> list[bytes]:
  from fusar_jax.geo.anchors import read_anchors, write_table

  (folder / "a.npz").write_bytes(anchors(folder)[0])
  places = _RNG.random((5, 6))
  write_table(folder / "a.npy", read_anchors(folder / "a.npz"), places)
  return [(folder / "a.npy").read_bytes()]


def _read_anchors(path: Path) -> None:
  from fusar_jax.geo.anchors import count_anchors, read_anchors

  count_anchors(path)
  read_anchors(path)


def _read_index(path: Path) -> None:
  from fusar_jax.geo.alphaearth_index import find_tiles

  table = find_tiles(path)
  for year in table.all_years:
    table.lonlat_bounds(table.of_year(year))


def _csv_index(path: Path) -> Path:
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, [*_ROW, "bounds"])
    writer.writeheader()
    writer.writerow(_ROW)
    bounds = "(500000, 4000000, 500400, 4000320)"
    writer.writerow({**_ROW, "path": _URL, "bounds": bounds})
  return path


def _parquet_index(path: Path) -> Path:
  import pyarrow as pa
  from pyarrow import parquet

  rows = [_ROW, {**_ROW, "year": 2023, "path": "b_2023.tif"}]
  parquet.write_table(pa.Table.from_pylist(rows), path)
  return path


def _package_index(path: Path) -> Path:
  from pyogrio import raw

  columns = {k: np.array([v] * 2, object if isinstance(v, str) else None)
             for k, v in _ROW.items()}  # fmt: skip
  raw.write(
    path, None, list(columns.values()), list(columns), driver="GPKG",
    geometry_type=None,
  )  # fmt: skip
  return path


def _read_names(text: str) -> None:
  from fusar_jax.geo import product_names

  product_names.find_polarisations((text,))
  path = Path("/" + text.replace("\0", "")[:4000])
  tags = {"SATELLITEID": text, "ACQUISITIONDATETIME": text}
  product_names.find_metadata(path, tags, (text,))


def _land_cover(folder: Path) -> list[bytes]:
  path = folder / "a.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=32, width=40, count=1, dtype="uint8",
    crs="EPSG:4326", transform=rasterio.Affine(1, 0, -180, 0, -1, 90),
    nodata=0,
  ) as file:  # fmt: skip
    file.write(np.full((1, 32, 40), 10, np.uint8))
  return [path.read_bytes()]


def _read_land_cover(path: Path) -> None:
  from fusar_jax.geo.georeference import Georeference
  from fusar_jax.geo.land_cover import open_land_cover

  image = Georeference("affine", "EPSG:32616", tuple(_AFFINE)[:6])
  open_land_cover([path], "worldcover", 2021).sample(image, 16, 16)


class _Scene:
  """As much of a scene as the reader of map features uses."""

  height, width = 32, 40

  @property
  def place(self):
    from fusar_jax.geo.georeference import Georeference

    return Georeference("affine", "EPSG:32616", tuple(_AFFINE)[:6])


def _read_features(path: Path) -> None:
  from fusar_jax.datasets.prepare.map_features import read_map_features

  scene: Any = _Scene()
  cover = np.zeros((32, 40), np.uint8)
  read_map_features([str(path)], [scene]).ground(scene.place, cover, 10.0)


def _feature_json(folder: Path) -> list[bytes]:
  scene = _Scene()
  ring = scene.place.footprint(20, 20).tolist()
  geometries = [
    {"type": "Polygon", "coordinates": [ring]},
    {"type": "MultiPolygon", "coordinates": [[ring], [ring]]},
    {"type": "LineString", "coordinates": ring},
    {"type": "Point", "coordinates": ring[0]},
  ]
  tags = [
    {"building": "yes", "height": "12 m"},
    {"natural": "water", "other_tags": '"water"=>"lake"'},
    {"highway": "primary", "width": 7},
    {"harbour": "yes"},
  ]
  features = [
    {"type": "Feature", "geometry": g, "properties": t}
    for g, t in zip(geometries, tags)
  ]
  collection = {"type": "FeatureCollection", "features": features}
  return [json.dumps(collection).encode()]


def _feature_file(path: Path) -> Path:
  import pyarrow as pa
  import shapely
  from pyarrow import parquet
  from pyogrio import raw

  shape = shapely.to_wkb(shapely.polygons(_Scene().place.footprint(20, 20)))
  if path.suffix == ".parquet":
    columns = {"geometry": [shape], "subtype": ["lake"], "class": ["lake"]}
    parquet.write_table(pa.table(columns), path)
  else:
    raw.write(
      path, np.array([shape], object), [np.array(["yes"], object)],
      ["building"], crs="EPSG:4326", driver="GPKG", geometry_type="Polygon",
    )  # fmt: skip
  return path


def _map_features(suffix: str) -> Target:
  return Target(
    _read_features,
    written(lambda folder: _feature_file(folder / f"a{suffix}")),
    suffix,
  )


def _index(write, suffix: str) -> Target:
  return Target(
    _read_index, written(lambda folder: write(folder / f"a{suffix}")), suffix
  )


TARGETS = {
  "anchors": Target(_read_anchors, anchors, ".npz"),
  "anchor table": Target(_read_anchors, _anchor_table, ".npy"),
  "array": Target(
    _read_raster,
    lambda folder: [
      array_bytes(np.ones((9, 9))),
      array_bytes(np.ones((2, 9, 9), np.uint16)),
    ],
    ".npy",
  ),
  "envi header": Target(
    _beside_raster,
    written(lambda folder: _envi(folder).with_suffix(".hdr")),
    "a.hdr",
    _envi,
  ),
  "land cover": Target(_read_land_cover, _land_cover, ".tif"),
  "land cover table": Target(
    lambda path: lazy("geo.land_cover_tables", "read_table")(str(path)),
    lambda folder: [b"code,cover\n10,trees\n20,unmapped\n"],
    ".csv",
  ),
  "map features geojson": Target(_read_features, _feature_json, ".geojson"),
  "map features gpkg": _map_features(".gpkg"),
  "map features parquet": _map_features(".parquet"),
  "product names": Target(
    _read_names,
    lambda folder: [
      b"s1a-iw1-slc-hh-20220414t102211-20220414t102236-042768-051aa4-001",
      b"GF3_MYN_FSI_002467_E115.8_N22.7_20170204_L1A_HH_L10002156411",
    ],
  ),
  "raster": Target(_read_raster, _rasters, ".tif"),
  "raster statistics": Target(
    _beside_raster, _statistics, "a.img.aux.xml",
    lambda folder: write_raster(folder / "a.img"),
  ),
  "stretches": Target(
    lazy("datasets.prepare.sources", "read_stretches"),
    as_json({"scenes": [{"name": "a", "stretches": [
      {"band": "1", "quantity": "amplitude", "curve": "amplitude", "low": 1.0,
       "high": 900.0, "percentiles": [1.0, 99.0], "pixels": 100}
    ]}]}),
    ".json",
  ),
  "tile": Target(
    _read_tile, written(lambda folder: _write_tile(folder / "a_2024.tif")),
    ".tif",
  ),
  "tile block": Target(
    _read_cached, lambda folder: [_block(folder)], _names()[1], _put_header,
    ("127.0.0.1",),
  ),
  "tile header": Target(
    _read_cached, lambda folder: [_header(folder)], _names()[0], _put_block,
    ("127.0.0.1",),
  ),
  "tile index csv": _index(_csv_index, ".csv"),
  "tile index gpkg": _index(_package_index, ".gpkg"),
  "tile index parquet": _index(_parquet_index, ".parquet"),
}  # fmt: skip
