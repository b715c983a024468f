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


def _scenes(folder: Path) -> list[bytes]:
  """Of the rasters, those that the page opens."""
  kinds = (b"II", b"MM", b"\x89PNG", b"\xff\xd8")
  return [content for content in _rasters(folder) if content.startswith(kinds)]


def _scene(path: Path) -> None:
  """A scene of the page: opened, shown, described."""
  from fusar_jax.serving.limits import RequestError
  from fusar_jax.serving.scene_tiles import SceneTiles
  from fusar_jax.serving.scenes import SceneLimits, Scenes

  try:
    scene = Scenes(SceneLimits(pixels=2**20)).open(path, path.name)
  except RequestError as error:
    raise ValueError(str(error)) from None
  try:
    SceneTiles(scene, path.parent).tile(0, 0, 0)
    json.dumps(scene.info, allow_nan=False)
  finally:
    scene.close()


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
    file.write(_RNG.integers(-67, 68, (64, 16, 16)).astype(np.int8))
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
  content = array_bytes(_RNG.integers(-67, 68, (64, 16, 16)).astype(np.int8))
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


def _stac_index(path: Path) -> Path:
  import datetime

  import pyarrow as pa
  from pyarrow import parquet

  row = {
    "id": "a",
    "bbox": {"xmin": -87.0, "ymin": 36.1, "xmax": -86.9, "ymax": 36.2},
    "datetime": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    "assets": {"data": {"href": "s3://a/b.tiff"}},
    "proj:epsg": 32616,
  }
  parquet.write_table(pa.Table.from_pylist([row]), path)
  return path


def _put_mosaic(folder: Path) -> None:
  """The arrays of a mosaic; its group is the input."""
  import tensorstore

  values = _RNG.integers(-67, 68, (1, 64, 4, 4)).astype(np.int8)
  for name, array in (("embeddings", values), ("time", np.int32([2024]))):
    tensorstore.open(
      {"driver": "zarr3", "kvstore": f"file://{folder / name}/"},
      create=True, dtype=array.dtype.name, shape=array.shape,
    ).result().write(array).result()  # fmt: skip


def _mosaic_group() -> dict[str, Any]:
  six = [0.1, 0, 10.0, 0, -0.1, 50.0]
  return {
    "zarr_format": 3,
    "node_type": "group",
    "attributes": {"proj:code": "EPSG:4326", "spatial:transform": six},
  }


def _mosaic_metadata(name: str):
  """Seeds: the metadata of one array."""

  def seeds(folder: Path) -> list[bytes]:
    _put_mosaic(folder)
    return [(folder / name / "zarr.json").read_bytes()]

  return seeds


def _put_all_of_mosaic(folder: Path) -> None:
  _put_mosaic(folder)
  (folder / "zarr.json").write_text(json.dumps(_mosaic_group()))


def _read_mosaic(path: Path) -> None:
  from fusar_jax.geo.alphaearth import open_archive

  below = path.parent.name in ("embeddings", "time")
  archive = open_archive(path.parent.parent if below else path.parent)
  for year in archive.years:
    archive.sample([10.05, 10.25], [49.95, 49.75], year)


def _put_bands(folder: Path) -> None:
  """All files of a tile in files of 16 bands but the first, the input."""
  for first in (16, 32, 48):
    _write_bands(folder / _bands_name(first), first)


def _bands_name(first: int) -> str:
  names = "_".join(f"A{band:02d}" for band in range(first, first + 16))
  return f"2024/{names}.tif"


def _write_bands(path: Path, first: int) -> Path:
  path.parent.mkdir(exist_ok=True)
  with rasterio.open(
    path, "w", driver="GTiff", height=16, width=16, count=16, dtype="float64",
    crs="EPSG:4326", transform=rasterio.Affine(1e-4, 0, 10, 0, -1e-4, 50),
  ) as file:  # fmt: skip
    file.write(np.full((16, 16, 16), 0.125))
  return path


def _read_bands(path: Path) -> None:
  from fusar_jax.geo.alphaearth import open_archive

  open_archive(path.parent).sample([10.0005], [49.9995], 2024)


def _package_index(path: Path) -> Path:
  from pyogrio import raw

  columns = {k: np.array([v] * 2, object if isinstance(v, str) else None)
             for k, v in _ROW.items()}  # fmt: skip
  raw.write(
    path, None, list(columns.values()), list(columns), driver="GPKG",
    geometry_type=None,
  )  # fmt: skip
  return path


_POINTS = "".join(
  f"<geolocationGridPoint><line>{r}</line><pixel>{c}</pixel><latitude>"
  f"{40 - r / 1e4 + c / 1e5}</latitude><longitude>{8 + c / 1e4}</longitude>"
  "<height>3.1e1</height></geolocationGridPoint>"
  for r in (0, 16, 31)
  for c in (0, 20, 39)
)
_VECTORS = "".join(
  f"<calibrationVector><line>{line}</line><pixel>0 39</pixel><sigmaNought>3e2"
  f" 4e2</sigmaNought></calibrationVector>"
  for line in (-3, 40)
)
_PRODUCT = {
  "measurement/iw-vv.tiff": lambda folder: write_raster(
    folder / "x.tif", crs=None, transform=None
  ).read_bytes(),
  "annotation/iw-vv.xml": lambda folder: f"<p>{_POINTS}</p>".encode(),
  "annotation/calibration/calibration-iw-vv.xml": lambda folder: (
    f"<c>{_VECTORS}</c>".encode()
  ),
}


def _product(*without: str):
  """Writes a Sentinel-1 product but for the files under test."""

  def write(folder: Path) -> None:
    for name, content in _PRODUCT.items():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      if name not in without:
        (folder / name).write_bytes(content(folder))

  return write


def _read_product(path: Path) -> None:
  from fusar_jax.geo.rasters import open_raster

  folder = path
  while not (folder / "measurement").is_dir():
    folder = folder.parent
  with open_raster(folder, calibrate="sigma0") as raster:
    raster.read((0, 0, 9, 9))
    json.dumps(raster.to_json(), allow_nan=False)


def _zipped_product(folder: Path) -> list[bytes]:
  import io
  import zipfile

  found = []
  for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
      for name, content in _PRODUCT.items():
        archive.writestr(f"S1A.SAFE/{name}", content(folder))
    found.append(file.getvalue())
  return found


_GAOFEN = "GF3_SAY_QPSI_011437_E99.2_N26.3_20181012_L1A_{}_L10003514923"
_ICEYE = "ICEYE_75CMBF_20240612T174339Z_4119892_X11_SLF_GRD"


def _coefficients(folder: Path) -> list[bytes]:
  from fusar_jax.geo.rational_functions import KEYS

  values = {"lat_off": 40, "long_off": 8}
  lists = {"line_num_coeff": "0,0,-1", "samp_num_coeff": "0,1,0"}
  lines = []
  for key, name in KEYS.items():
    text = str(values.get(name, 500 if "_coeff" not in name else ""))
    if "_coeff" in name:
      text = f"({lists.get(name, '1,0,0')}{',0' * 17})"
    lines.append(f"{key} = {text};\n")
  return ["".join(lines).encode()]


def _read_items(path: Path) -> None:
  from fusar_jax.geo import stac

  for scene in stac.expand(path):
    stac.read_item(scene)


def _read_calibrated(path: Path) -> None:
  """The input is beside an image, and says how it is calibrated."""
  from fusar_jax.geo.rasters import open_raster

  with open_raster(
    next(path.parent.glob("*.tif")), calibrate="sigma0"
  ) as raster:
    raster.read((0, 0, 9, 9))
    json.dumps(raster.to_json(), allow_nan=False)


def _described(folder: Path) -> list[bytes]:
  """An image with Capella's description."""
  image = {"scale_factor": 0.004, "radiometry": "sigma_nought"}
  path = write_raster(folder / "a")
  with rasterio.open(path, "r+") as file:
    text = json.dumps({"collect": {"image": image}, "platform": "capella"})
    file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)
  return [path.read_bytes()]


def _read_zip(path: Path) -> None:
  from fusar_jax.geo.rasters import open_raster

  with open_raster(path, calibrate="sigma0") as raster:
    raster.read((0, 0, 9, 9))


def _annotation(name: str) -> Target:
  return Target(
    _read_product, lambda folder: [_PRODUCT[name](folder)], name, _product(name)
  )


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
  "capella": Target(
    _read_calibrated, _described, "CAPELLA_C14.tif"
  ),
  "gaofen-3 metadata": Target(
    _read_calibrated,
    lambda folder: [
      b"<p><productinfo><productType>SLC</productType></productinfo>"
      b"<QualifyValue><HV>120.5</HV></QualifyValue><CalibrationConst><HV>32.75"
      b"</HV></CalibrationConst></p>"
    ],
    f"{_GAOFEN.format('AHV')}.meta.xml",
    lambda folder: write_raster(folder / f"{_GAOFEN.format('HV')}.tif"),
    (_GAOFEN.format("HV"),),
  ),
  "iceye metadata": Target(
    _read_calibrated,
    as_json({"properties": {"iceye:calibration_factor": 2e-6}}),
    f"{_ICEYE}.json",
    lambda folder: write_raster(folder / f"{_ICEYE}.tif"),
    (f"{_ICEYE}.tif",),
  ),
  "mosaic": Target(
    _read_mosaic, as_json(_mosaic_group()), "zarr.json", _put_mosaic
  ),
  "mosaic array": Target(
    _read_mosaic, _mosaic_metadata("embeddings"), "embeddings/zarr.json",
    _put_all_of_mosaic,
  ),
  "mosaic years": Target(
    _read_mosaic, _mosaic_metadata("time"), "time/zarr.json",
    _put_all_of_mosaic,
  ),
  "product names": Target(
    _read_names,
    lambda folder: [
      b"s1a-iw1-slc-hh-20220414t102211-20220414t102236-042768-051aa4-001",
      b"GF3_MYN_FSI_002467_E115.8_N22.7_20170204_L1A_HH_L10002156411",
    ],
  ),
  "raster": Target(_read_raster, _rasters, ".tif"),
  "scene of the page": Target(
    _scene, _scenes, ".tif",
    named=("not an image that is opened here", "pixels, at most", "grid files"),
  ),
  "raster statistics": Target(
    _beside_raster, _statistics, "a.img.aux.xml",
    lambda folder: write_raster(folder / "a.img"),
  ),
  "sentinel-1 annotation": _annotation("annotation/iw-vv.xml"),
  "sentinel-1 calibration": _annotation(
    "annotation/calibration/calibration-iw-vv.xml"
  ),
  "sentinel-1 zip": Target(_read_zip, _zipped_product, ".zip"),
  "rpc": Target(
    _beside_raster, _coefficients, "a.rpc",
    lambda folder: write_raster(
      folder / "a.img", driver="ENVI", nodata=None, crs=None, transform=None
    ),
  ),
  "stac": Target(
    _read_items,
    as_json(
      {"type": "Feature", "id": "S1A", "properties": {"platform": "sentinel-1a",
       "datetime": "2020-01-03T23:35:56Z"}, "assets": {
       "vv": {"href": "a_VV.tif"}, "vh": {"href": "b/c_VH.tif"}}},
      {"type": "FeatureCollection", "features": [
        {"type": "Feature", "id": "a", "assets": {"data": {"href": "a_VV.tif"}}}
      ]},
    ),
    "a.json",
    lambda folder: write_raster(folder / "a_VV.tif"),
    ("a_VV", "c_VH"),
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
  "tile bands": Target(
    _read_bands, written(lambda folder: _write_bands(
      folder / _bands_name(0), 0)), _bands_name(0), _put_bands,
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
  "tile index stac": _index(_stac_index, ".parquet"),
}  # fmt: skip
