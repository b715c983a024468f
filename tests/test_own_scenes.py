"""The commands of docs/data.md from public files to a stage-1 run.

Stand-ins for the published files are as small as a tile, in the same formats.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax import doctor, prepare
from fusar_jax.data.triplets import read_manifest
from fusar_jax.geo.georeference import Georeference
from fusar_jax.tasks import captioning
from fusar_jax.training.loop import train_and_evaluate

ROOT = Path(__file__).resolve().parent.parent
SIZE = 56
STEP = 3 / 36_000
PLACE = Georeference("affine", "EPSG:32632", (10.0, 0, 5e5, 0, -10.0, 5.05e6))


def commands() -> dict[str, list[str]]:
  """{module: its arguments} of the section's commands."""
  page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
  section = page.partition("## Captions: stage 1")[2].partition("\n## ")[0]
  block = re.search(r"^```bash\n(.*?)^```", section, re.M | re.S)
  lines = block[1].replace("\\\n", " ").splitlines()
  return {(words := shlex.split(line))[2]: words[3:] for line in lines}


def write(path, values, transform, crs, **options):
  values = np.atleast_3d(values) if values.ndim == 2 else values
  values = np.moveaxis(values, -1, 0)
  path.parent.mkdir(exist_ok=True)
  with rasterio.open(
    path, "w", driver="GTiff", count=len(values), height=values.shape[1],
    width=values.shape[2], dtype=values.dtype, crs=crs, transform=transform,
    **options,
  ) as file:  # fmt: skip
    file.write(values)


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The files that the commands name: eight tiles of fields at a lake."""
  rng = np.random.default_rng(0)
  affine = Affine(*PLACE.transform)
  words = commands()["fusar_jax.prepare"]
  scene, cover = (
    tmp_path / words[words.index(option) + 1]
    for option in ("--sar", "--land-cover")
  )
  values = rng.gamma(2, 50, (2 * SIZE, 4 * SIZE)).astype(np.uint16)
  write(scene, values, affine, PLACE.crs)
  vectors = rng.integers(-60, 60, (120, 240, 64)).astype(np.int8)
  name = tmp_path / "AEF" / "tile_2021.tif"
  write(name, vectors, affine, PLACE.crs, nodata=-128)
  lons, lats = PLACE.to_lonlat(np.array([0.0, 120]), np.array([0.0, 240]))
  transform = Affine(
    STEP, 0, lons[0] - 20 * STEP, 0, -STEP, lats[0] + 20 * STEP
  )
  codes = np.full((180, 430), 40, np.uint8)
  codes[:, :90] = 80
  write(cover, codes, transform, "EPSG:4326", nodata=0)
  ring = [[lons[0], lats[0]], [lons[1], lats[0]], [lons[1], lats[1]]]
  feature = {
    "type": "Feature",
    "properties": {"natural": "water", "water": "lake", "building": None},
    "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
  }
  collection = {"type": "FeatureCollection", "features": [feature]}
  (tmp_path / "osm.geojson").write_text(json.dumps(collection))
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.mark.slow
def test_the_walk(folder, call, small_base, make_config):
  given = commands()
  assert list(given) == [
    "fusar_jax.prepare",
    "fusar_jax.doctor",
    "fusar_jax.train",
  ]
  done = call(prepare.main, *given["fusar_jax.prepare"], "--size", str(SIZE))
  assert done.code == 0, done.text
  assert "8 captions from worldcover of 2021 and osm.geojson" in done.text
  rows = read_manifest(folder / "data/captions/manifest.jsonl")
  fields = [captioning.parse(row.answer).fields for row in rows]
  assert len(fields) == 8
  assert "lake shore" in fields[0]["Terrain"]
  assert "cropland" in fields[1]["Distribution"]
  done = call(doctor.main, *given["fusar_jax.doctor"])
  assert done.code == 0, done.text
  page = (folder / "doctor.html").read_text(encoding="utf-8")
  assert "Caption fields" in page
  assert fields[0]["Water"] in page
  # As the command, but with a smaller base and one step.
  manifest = folder / "data/captions/manifest.jsonl"
  option = f"--config.data.train={manifest.relative_to(folder)}"
  assert option in given["fusar_jax.train"]
  config = make_config(
    "stage1", manifest, "model=tiny", init=str(small_base),
    **{"data.max_length": 1024, "steps": 1,
       "log_every_steps": 1, "save_every_steps": 1},
  )  # fmt: skip
  train_and_evaluate(config, folder / "runs/stage1")
  lines = (folder / "runs/stage1/metrics.jsonl").read_text().splitlines()
  assert any("loss" in json.loads(line) for line in lines)
