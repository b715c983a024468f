"""Scores a mosaic of simulated pictures: merged boxes beside those of tiles.

    python tests/scale/scene.py --model runs/demo_long/stage2 --out runs/scene

24 x 24 pictures of 168 pixels make one scene of 4032 x 4032 with known truth.
`evaluate` scores its overlapping tiles one by one, `interpret --labels` the
merged boxes. With --pixels HEIGHT WIDTH, a raster of that size and of noise is
interpreted too, and its peak memory printed.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine
from rasterio.windows import Window

_SIDE, _SIZE, _OVERLAP = 24, 168, 42
_PLACE = {"crs": "EPSG:32632", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
_ROWS = 512  # Of noise that are written at a time.


def main() -> int:
  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--model", required=True, help="a run of stage 2")
  options.add_argument("--out", type=Path, required=True)
  options.add_argument("--seed", type=int, default=555, help="of the scenes")
  options.add_argument(
    "--pixels", type=int, nargs=2, metavar=("HEIGHT", "WIDTH")
  )
  args = options.parse_args()
  out, model = args.out, ("--model", args.model)
  data = out / "simulated"
  if not (data / "dataset.json").exists():
    _run("simulate", "--out", data, "--scenes", 1000, "--seed", args.seed,
         "--tasks", "detection")  # fmt: skip
  scene, labels = _mosaic(data, out)
  _run("prepare", "--sar", scene, "--labels", labels, "--out", out / "tiles",
       "--size", _SIZE, "--overlap", _OVERLAP, "--tasks", "detection",
       "--source", "simulated", "--license", "Apache-2.0")  # fmt: skip
  _run("evaluate", *model, "--manifest", out / "tiles" / "manifest.jsonl",
       "--out", out / "scores")  # fmt: skip
  asked = ("--task", "detection", "--classes", "ship,plane")
  _run("interpret", *model, "--sar", scene, *asked, "--labels", labels,
       "--out", out / "merged")  # fmt: skip
  if args.pixels:
    _run("interpret", *model, "--sar", _noise(out, *args.pixels), "--task",
         "detection", "--classes", "ship", "--size", 504, "--out",
         out / "noise")  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"largest peak memory of a command: {peak / 1e9:.2f} GB")
  return 0


def _mosaic(data: Path, out: Path) -> tuple[Path, Path]:
  """Writes the scene and its labels."""
  scene, labels = out / "mosaic.tif", out / "mosaic.csv"
  rows = map(json.loads, (data / "tasks.jsonl").read_text().splitlines())
  # A picture has targets of one class, and one row.
  pictures = sorted({row["image"]: row for row in rows}.items())[: _SIDE**2]
  canvas = np.zeros((_SIDE * _SIZE, _SIDE * _SIZE), np.uint8)
  lines = ["x1,y1,x2,y2,label"]
  for place, (name, row) in enumerate(pictures):
    y, x = (_SIZE * at for at in divmod(place, _SIDE))
    pixels = np.asarray(Image.open(data / name).convert("L"))
    canvas[y : y + _SIZE, x : x + _SIZE] = pixels
    for (x1, y1, x2, y2), label in zip(row["boxes"], row["labels"]):
      lines.append(f"{x1 + x},{y1 + y},{x2 + x},{y2 + y},{label}")
  with _write(scene, canvas.shape, "uint8") as file:
    file.write(canvas, 1)
  labels.write_text("\n".join(lines) + "\n")
  return scene, labels


def _noise(out: Path, height: int, width: int) -> Path:
  rng = np.random.default_rng(0)
  path = out / "noise.tif"
  with _write(path, (height, width), "uint16") as file:
    for row in range(0, height, _ROWS):
      shape = min(_ROWS, height - row), width
      values = rng.gamma(2, 60, shape).astype(np.uint16)
      file.write(values, 1, window=Window(0, row, *shape[::-1]))
  return path


def _write(path, shape, dtype):
  height, width = shape
  return rasterio.open(
    path, "w", driver="GTiff", height=height, width=width, count=1,
    dtype=dtype, **_PLACE,
  )  # fmt: skip


def _run(command: str, *arguments) -> None:
  words = [sys.executable, "-m", f"fusar_jax.{command}", *map(str, arguments)]
  subprocess.run(words, check=True)


if __name__ == "__main__":
  sys.exit(main())
