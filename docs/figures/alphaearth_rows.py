"""The figure of docs/data.md: one place, read from both row orders.

COMMAND:
  python docs/figures/alphaearth_rows.py TOP.tif BOTTOM.tif 2024 rows.png

Left and middle: `Archive.sample` on a grid over the tile, from the file whose
rows run southwards and from the one whose rows run northwards. Right: the
tile's own pixels. Colours are the first three principal components of the
tile's vectors. Ends with an error if left and middle differ in any bit.
"""

import sys

import numpy as np
import rasterio
from PIL import Image

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_tiles import TileReader
from fusar_jax.geo.georeference import Georeference
from fusar_jax.report.anchor_colours import anchor_colours

SIDE = 300


def main(top_down: str, bottom_up: str, year: str, out: str) -> None:
  with rasterio.open(top_down) as dataset:
    height, width = dataset.shape
    place = Georeference.of(dataset)
  rows, cols = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
  lons, lats = place.to_lonlat(rows.ravel() * height, cols.ravel() * width)
  sampled = []
  for path in (top_down, bottom_up):
    with open_archive(path, year=int(year)) as archive:
      vectors, found = archive.sample(lons, lats, int(year))
    if not found.all():
      sys.exit(f"{path}: {np.count_nonzero(~found)} places have no vector.")
    sampled.append(vectors)
  if not np.array_equal(*sampled):
    sys.exit("the two row orders give different vectors.")
  reader = TileReader(top_down)
  stored = reader.read(0, 0, height, width).reshape(64, -1)
  native = reader.vectors(stored)[0].T
  colours, _ = anchor_colours(np.concatenate([*sampled, native]))
  pictures = [
    np.asarray(Image.fromarray(part.reshape(h, w, 3)).resize((SIDE, SIDE), 0))
    for part, (h, w) in zip(
      np.split(colours, [SIDE**2, 2 * SIDE**2]),
      [(SIDE, SIDE), (SIDE, SIDE), (height, width)],
      strict=True,
    )
  ]
  gap = np.full((SIDE, 6, 3), 255, np.uint8)
  sheet = [pictures[0], gap, pictures[1], gap, pictures[2]]
  Image.fromarray(np.concatenate(sheet, axis=1)).save(out, optimize=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
