"""Requests and bytes of a scene over a tile of the published size.

    python tests/scale/alphaearth_tile.py

Writes four of the 64 blocks of an 8192 x 8192 tile (64 int8 bands, blocks of
1024 x 1024, 130 MB) to a temporary folder, serves it on the loopback, samples
a scene of 10 x 10 km, whose quarters lie in one block each.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fusar_jax.geo import georeference
from fusar_jax.geo.alphaearth import open_archive
from tests.geo.range_server import serve

SIDE, BLOCK = 8192, 1024
WEST, SOUTH, CRS = 500_000, 5_242_880, "EPSG:32610"
PLACES = [(2, 3), (2, 4), (3, 3), (3, 4)]


def write(path: Path) -> int:
  """Returns the bytes of the blocks, about 0.5 MB each as the real ones."""
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 3, (BLOCK, BLOCK)).astype(np.int8)
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=64, dtype="int8",
    crs=CRS, transform=Affine(10, 0, WEST, 0, 10, SOUTH), nodata=-128,
    interleave="band", compress="ZSTD", tiled=True, blockxsize=BLOCK,
    blockysize=BLOCK, BIGTIFF="YES", SPARSE_OK="TRUE",
  ) as file:  # fmt: skip
    for band in range(1, 65):
      for row, col in PLACES:
        window = Window(col * BLOCK, row * BLOCK, BLOCK, BLOCK)
        file.write(noise + np.int8(rng.integers(-67, 68)), band, window=window)
    file.descriptions = [f"A{band:02d}" for band in range(64)]
  with rasterio.open(path) as file:
    return sum(
      int(file.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=band))
      for band in range(1, 65)
      for row, col in PLACES
    )


def main() -> None:
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "served").mkdir()
    fewest = write(folder / "served" / "t_2024.tiff")
    with serve(folder / "served") as server:
      url = f"{server.root}/t_2024.tiff"
      archive = open_archive(url, cache=folder / "cache")
      print(f"open: {len(server.headers)} requests, {server.sent} bytes")
      steps = (np.arange(32) + 0.5) / 32 * 5000
      x, y = (v.ravel() for v in np.meshgrid(steps, steps))
      for i, (row, col) in enumerate(PLACES, start=1):
        east = WEST + 10 * 4 * BLOCK - 5000 * (col == 3)
        north = SOUTH + 10 * 3 * BLOCK - 5000 * (row == 2)
        places = georeference.reproject(
          CRS, georeference.LONLAT, x + east, y + north
        )
        assert archive.sample(*places, 2024)[1].all()
        ratio = server.sent / (fewest * i / len(PLACES))
        print(
          f"{i} of 4 quarters: {len(server.headers)} requests,"
          f" {server.sent / 1e6:.1f} MB, {ratio:.3f} of the fewest",
          flush=True,
        )


if __name__ == "__main__":
  main()
