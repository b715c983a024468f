"""Measures the page with a scene of 20,000 x 20,000 pixels.

COMMAND:
  python tests/serving/page_speed.py

Prints the time to the first tiles, the time per tile while the view pans and
zooms, and the memory of the server, which runs in a process of its own with the
base that the package ships. The scene is uint16 in compressed blocks of 512 x
512, written to a temporary folder, or kept with --scene FILE.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import rasterio
from rasterio.windows import Window

SIDE, BLOCK, TILE = 20_000, 512, 256
# Tiles that the page asks for at a time, and those of a view of 1280 x 900.
TOGETHER, VIEW = 8, (5, 4)


def main() -> None:
  """Runs the measurement."""
  p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  p.add_argument("--scene", type=Path, help="kept and used again")
  args = p.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    path = args.scene or Path(folder) / "scene.tif"
    if not path.exists():
      write_scene(path)
    print(
      f"scene: {path.stat().st_size / 2**20:.0f} MiB, {os.cpu_count()} cores"
    )
    command = [sys.executable, "-m", "fusar_jax.serve", "--model", "tiny-base"]
    with subprocess.Popen(
      [*command, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
      try:
        assert server.stdout is not None
        url = re.search(r"http://\S+(?=/v1)", server.stdout.readline())
        assert url is not None
        measure(url[0], path, server.pid)
      finally:
        server.terminate()
        server.communicate()


def write_scene(path: Path) -> None:
  """Writes speckle with bright rectangles."""
  rng = np.random.default_rng(0)
  chunk = rng.rayleigh(120, (2048, 2048)).astype(np.uint16)
  with rasterio.open(
    path, "w", driver="GTiff", height=SIDE, width=SIDE, count=1, dtype="uint16",
    tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate",
    zlevel=1,
  ) as file:  # fmt: skip
    for row in range(0, SIDE, 2048):
      for col in range(0, SIDE, 2048):
        h, w = min(2048, SIDE - row), min(2048, SIDE - col)
        part = np.roll(chunk, (row // 7, col // 5), (0, 1))[:h, :w].copy()
        for y, x in rng.integers(0, 2000, (6, 2)):
          part[y : y + 8, x : x + 20] = 4000
        file.write(part, 1, window=Window(col, row, w, h))


def measure(url: str, path: Path, pid: int) -> None:
  """Prints the measured values."""
  before = resident(pid)
  with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
    start = time.monotonic()
    scene = client.post(
      "/scenes?name=scene.tif",
      content=path.open("rb"),
      headers={"Content-Type": "application/octet-stream"},
    ).json()
    opened = time.monotonic()
    print(f"upload and opening: {opened - start:.1f} s")
    middle = SIDE // TILE // 2
    get(client, scene, 0, middle, middle)
    print(f"first tile at full resolution: {time.monotonic() - opened:.2f} s")
    top = scene["levels"] - 1
    get(client, scene, top, 0, 0)
    print(
      f"first tile of all of it, unfinished: {time.monotonic() - opened:.2f} s"
    )
    report("while the overview is made", pan(client, scene, 0, 40))
    while client.get(f"/scenes/{scene['id']}").json()["overview"] < 1:
      time.sleep(0.2)
    print(f"overview complete: {time.monotonic() - opened:.1f} s")
    for level in range(top + 1):
      report(f"level {level}", pan(client, scene, level, 20))
  print(f"memory: {before:.0f} MiB before, {resident(pid):.0f} MiB after")


def pan(client, scene, level: int, steps: int) -> tuple[list[float], float]:
  """Returns (seconds of each new tile, seconds of all) of a panning view."""
  across = -(-SIDE // (TILE << level))
  rng = np.random.default_rng(level)
  seen, times = set(), []
  start = time.monotonic()
  with concurrent.futures.ThreadPoolExecutor(TOGETHER) as pool:
    x, y = rng.integers(0, max(1, across - VIEW[0]), 2)
    for _ in range(steps):
      dx, dy = rng.integers(-1, 3, 2)
      x, y = (min(max(int(v), 0), across - 1) for v in (x + dx, y + dy))
      view = [
        (x + i, y + j)
        for i in range(VIEW[0])
        for j in range(VIEW[1])
        if x + i < across and y + j < across
      ]
      new = [at for at in view if at not in seen]
      seen.update(new)
      times += pool.map(lambda at: get(client, scene, level, *at), new)
  return times, time.monotonic() - start


def get(client, scene, level, x, y) -> float:
  """Fetches a tile; returns seconds."""
  start = time.monotonic()
  path = f"/scenes/{scene['id']}/tiles/{level}/{x}/{y}.png"
  client.get(path).raise_for_status()
  return time.monotonic() - start


def report(name: str, measured: tuple[list[float], float]) -> None:
  """Prints one line."""
  times, whole = measured
  middle, high = np.percentile(times, [50, 95])
  print(
    f"{name}: {len(times)} tiles, {len(times) / whole:.0f} a second, median"
    f" {1000 * middle:.0f} ms, p95 {1000 * high:.0f} ms"
  )


def resident(pid: int) -> float:
  """Returns the resident memory of a process, MiB."""
  text = Path(f"/proc/{pid}/status").read_text()
  return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


if __name__ == "__main__":
  main()
