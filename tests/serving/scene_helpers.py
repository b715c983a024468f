"""Scenes of the page, and how tests talk to it."""

import io
import json
import os
import re
from pathlib import Path

import httpx
import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import Affine

BYTES = {"Content-Type": "application/octet-stream"}
SHARED = Path(os.environ.get("FUSAR_SHARED", "../shared")) / "data"
PLACE = Affine(10.0, 0, 500_000, 0, -10.0, 5_000_000)


def png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def geotiff(path: Path, values: np.ndarray, **options) -> Path:
  options = {"crs": "EPSG:32633", "transform": PLACE, **options}
  height, width = values.shape
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=height,
    width=width,
    count=1,
    dtype=values.dtype,
    **options,
  ) as file:
    file.write(values, 1)
  return path


def two_bands(path: Path, values: np.ndarray) -> Path:
  """Writes float32[2, h, w], the amplitudes of VV and VH."""
  height, width = values.shape[1:]
  with rasterio.open(
    path, "w", "GTiff", width, height, 2, "EPSG:32633", PLACE, "float32"
  ) as file:
    file.write(values.astype(np.float32))
    file.descriptions = ["VV", "VH"]
    file.update_tags(QUANTITY="amplitude")
  return path


def upload(page: httpx.Client, content: bytes, name="a.tif") -> dict:
  answer = page.post(
    "/scenes", params={"name": name}, content=content, headers=BYTES
  )
  assert answer.status_code == 200, answer.text
  return answer.json()


def tile(page, scene, level, x, y) -> np.ndarray:
  answer = page.get(f"/scenes/{scene['id']}/tiles/{level}/{x}/{y}.png")
  assert answer.status_code == 200, answer.text
  return np.asarray(Image.open(io.BytesIO(answer.content)))


def ask(page, scene, **fields) -> list[dict]:
  """Returns the events of an answer."""
  fields = {"window": [0, 0, scene["width"], scene["height"]], **fields}
  answer = page.post(f"/scenes/{scene['id']}/ask", json=fields)
  assert answer.status_code == 200, answer.text
  return [
    json.loads(line.removeprefix("data: "))
    for line in answer.text.splitlines()
    if line
  ]


def rejected(answer: httpx.Response, status: int, words: str) -> None:
  assert answer.status_code == status, answer.text
  assert re.search(words, answer.json()["error"]["message"])
