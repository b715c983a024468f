"""AlphaEarth as published, scaled down: tiles, indexes and a server of both.

  alphaearth_foundations/satellite_embedding/v1/annual/
    aef_index.csv, aef_index.parquet, aef_index.gpkg
    2024/10N/x...-0000000000-0000000000.tiff, ...
  us-west-2.opendata.source.coop/tge-labs/aef/v1/annual/
    the same tiles, .vrt beside them, indexes with its own paths

A tile is a bottom-up BigTIFF of 64 int8 bands, one after another, in ZSTD
blocks of 16 x 16 pixels, 8 x 8 of them: sides are 1/64 of the real ones.
"""

import csv
import dataclasses
import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import rasterio
import rasterio.warp
import shapely
from pyarrow import parquet
from rasterio.transform import Affine

SIZE, BLOCK, PIXEL = 128, 16, 10.0
WEST, SOUTH, ZONE, CRS = 500_000, 5_242_880, "10N", "EPSG:32610"
GOOGLE = "alphaearth_foundations/satellite_embedding/v1/annual"
MIRROR = "us-west-2.opendata.source.coop/tge-labs/aef/v1/annual"
COLUMNS = (
  "WKT", "crs", "path", "year", "utm_zone", "utm_west", "utm_south",
  "utm_east", "utm_north", "wgs84_west", "wgs84_south", "wgs84_east",
  "wgs84_north",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Tile:
  """One tile: year, place in the grid of the image, and its values.

  Attributes:
    values: int8[64, 128, 128], from the top down.
  """

  year: int
  row: int
  col: int
  values: np.ndarray

  @property
  def name(self) -> str:
    image = f"x{self.year}fbrm1fbu1ecw"
    return f"{image}-{self.row * 8192:010d}-{self.col * 8192:010d}"

  @property
  def bounds(self) -> tuple[float, float, float, float]:
    """West, south, east, north; rows are counted from the south."""
    side = SIZE * PIXEL
    west, south = WEST + self.col * side, SOUTH + self.row * side
    return west, south, west + side, south + side

  @property
  def below(self) -> str:
    return f"{self.year}/{ZONE}/{self.name}.tiff"

  def write(self, path: Path, *, bottom_up: bool = True) -> Path:
    west, south, _, north = self.bounds
    values, transform = self.values, Affine(PIXEL, 0, west, 0, -PIXEL, north)
    if bottom_up:
      values = values[:, ::-1]
      transform = Affine(PIXEL, 0, west, 0, PIXEL, south)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
      path, "w", driver="GTiff", height=SIZE, width=SIZE, count=64,
      dtype="int8", crs=CRS, transform=transform, nodata=-128,
      interleave="band", compress="ZSTD", tiled=True, blockxsize=BLOCK,
      blockysize=BLOCK, BIGTIFF="YES",
    ) as file:  # fmt: skip
      file.write(values)
      file.descriptions = [f"A{band:02d}" for band in range(64)]
    return path

  def row_of(self, root: str) -> dict[str, str | int | float]:
    """The tile's row in the index of an archive at root."""
    box = self.bounds
    degrees = rasterio.warp.transform_bounds(CRS, "EPSG:4326", *box)
    west, south, east, north = degrees
    ring = f"{west} {south}, {west} {north}, {east} {north}, {east} {south}"
    numbers = [*map(int, box), *degrees]
    return dict(
      zip(
        COLUMNS,
        [f"POLYGON(({ring}, {west} {south}))", CRS, f"{root}/{self.below}",
         self.year, ZONE, *numbers],
        strict=True,
      )
    )  # fmt: skip


def values(seed: int) -> np.ndarray:
  """int8[64, 128, 128], vectors of about unit length."""
  rng = np.random.default_rng(seed)
  return rng.integers(-67, 68, (64, SIZE, SIZE), np.int8)


def write_csv(path: Path, rows: list[dict]) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
  return path


def write_archive(folder: Path, tiles: list[Tile]) -> None:
  """Writes the tiles and the CSV indexes below folder, in both layouts."""
  for root, scheme in ((GOOGLE, "gs"), (MIRROR, "s3")):
    for tile in tiles:
      path = folder / root / tile.below
      if scheme == "gs":
        tile.write(path)
      else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(folder / GOOGLE / tile.below)
        path.with_suffix(".vrt").write_text(
          '<VRTDataset rasterXSize="4" rasterYSize="4"/>'
        )
    rows = [tile.row_of(f"{scheme}://{root}") for tile in tiles]
    write_csv(folder / root / "aef_index.csv", rows)
    parquet.write_table(
      pa.Table.from_pylist(rows), folder / root / "aef_index.parquet",
      row_group_size=2,
    )  # fmt: skip
    if scheme == "gs":
      write_package(folder / root / "aef_index.gpkg", rows)


def write_package(path: Path, rows: list[dict]) -> None:
  """Writes rows as a layer with the geometries of WKT and a spatial index."""
  shapes = shapely.to_wkb([shapely.from_wkt(row["WKT"]) for row in rows])
  columns = {k: pa.array([row[k] for row in rows]) for k in COLUMNS[1:]}
  table = pa.table({**columns, "geometry": pa.array(shapes, pa.binary())})
  pyogrio.write_arrow(
    table, path, driver="GPKG", geometry_name="geometry",
    geometry_type="Polygon", crs="EPSG:4326",
  )  # fmt: skip


def stac_rows(tiles: list[Tile], root: str, code: str) -> pa.Table:
  """The mirror's STAC table; code: "proj:epsg" or "proj:code"."""
  rows = []
  for tile in tiles:
    known = tile.row_of(root)
    box = [
      known[f"wgs84_{edge}"] for edge in ("west", "south", "east", "north")
    ]
    rows.append(
      {
        "id": tile.name,
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        "datetime": datetime.datetime(tile.year, 1, 1, tzinfo=datetime.UTC),
        "assets": {"data": {"href": known["path"]}},
        code: 32610 if code == "proj:epsg" else CRS,
      }
    )
  return pa.Table.from_pylist(rows)
