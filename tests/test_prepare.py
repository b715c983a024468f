"""The command `prepare`: valid output, resumption, rejected input."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax.config import preset
from fusar_jax.datasets.scan import read_splits
from fusar_jax.prepare import main

TERMS = ["--source", "made for this test", "--license", "none stated"]


def _write(path, values, **profile):
  count, height, width = values.shape
  profile |= {"count": count, "height": height, "width": width}
  transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    dtype=values.dtype,
    crs="EPSG:32632",
    transform=transform,
    **profile,
  ) as file:
    file.write(values)
  return path


@pytest.fixture
def scene(tmp_path):
  values = np.random.default_rng(0).gamma(2, 50, (1, 600, 600))
  path = tmp_path / "S1A_IW_GRDH_1SDV_20230809T020729.tif"
  return _write(path, values.astype(np.uint16))


@pytest.fixture
def aef(tmp_path):
  """A tile without a year in its name, over the west half of the scene."""
  values = np.full((64, 600, 300), 45, np.int8)
  return _write(tmp_path / "aef.tif", values, nodata=-128, compress="deflate")


def _bytes_of(folder):
  files = (path for path in folder.rglob("*") if path.is_file())
  return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_scene_becomes_a_data_set(tmp_path, scene, aef, call):
  """All option groups together; validation finds no errors."""
  labels = tmp_path / "labels.csv"
  labels.write_text("x1,y1,x2,y2,label\n20,30,60,50,ship\n390,20,420,44,ship\n")
  out = tmp_path / "out"
  arguments = ["--sar", str(scene), "--out", str(out), *TERMS]
  arguments += ["--size", "224", "--overlap", "24", "--metadata-in-prompt"]
  arguments += ["--aef", str(aef), "--year", "2023", "--labels", str(labels)]
  first = call(main, *arguments)
  assert first.code == 0
  assert "2 targets, shown 3 times; 0 in no tile" in first.out
  assert "3 tiles have AlphaEarth below less than 50 %" in first.out
  assert "produced by Google" in first.out
  splits, problems = read_splits([out], preset("tiny"))
  assert problems == []
  rows = splits[0].rows
  assert len(rows) == 9 * 3
  assert sum(row.anchors[0] is not None for row in rows) == 6 * 3
  ship = next(row for row in rows if row.labels)
  assert ship.triplet.question.startswith("Sensor Sentinel-1A, acquired on")
  # A second run changes nothing and prints the same.
  before = _bytes_of(out)
  assert call(main, *arguments) == first
  assert _bytes_of(out) == before
  done = call(main, *arguments, "--min-valid", "0.9")
  assert done.code == 1
  assert "min_valid: was 0.5, now 0.9" in done.err


def test_without_labels_the_rows_are_for_prediction(tmp_path, scene, call):
  out = tmp_path / "out"
  done = call(main, "--sar", scene, "--out", out)
  assert done.code == 0
  assert "not for training" in done.text
  card = json.loads((out / "dataset.json").read_text())
  assert (card["source"], card["license"]) == (None, None)
  assert (card["labelled"], card["tasks"]) == (False, ["captioning"])
  replayed = tmp_path / "replayed"
  arguments = ["--stretch", str(out / "dataset.json"), "--size", "300"]
  command = ["--sar", scene, "--out", replayed]
  assert call(main, *command, *arguments).code == 0
  again = json.loads((replayed / "dataset.json").read_text())
  assert again["scenes"][0]["stretches"] == card["scenes"][0]["stretches"]


@pytest.fixture
def interruptible():
  """Children handle SIGINT even if a background job runs the tests."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_run_again(tmp_path, scene, how):
  """A process interrupted at any point resumes to identical bytes."""
  # Hundreds of tiles: the signal arrives before the end on a busy machine.
  options = ["--sar", str(scene), *TERMS, "--size", "28"]
  whole, out = tmp_path / "whole", tmp_path / "out"
  assert main([*options, "--out", str(whole)]) == 0
  command = [sys.executable, "-m", "fusar_jax.prepare", *options]
  with subprocess.Popen(
    [*command, "--out", str(out)],
    stderr=subprocess.PIPE,
    env=os.environ | {"OMP_NUM_THREADS": "1"},
  ) as process:
    journal = out / "prepare.partial.jsonl"
    deadline = time.monotonic() + 180
    while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
      assert process.poll() is None, process.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.002)
    process.send_signal(how)
    process.wait()
    printed = process.stderr.read()
  assert journal.exists()
  assert not (out / "manifest.jsonl").exists()
  if how == signal.SIGINT:
    assert process.returncode == 130
    assert b"run the same command to continue" in printed
  assert main([*options, "--out", str(out)]) == 0
  assert _bytes_of(out) == _bytes_of(whole)


@pytest.mark.parametrize(
  ("arguments", "code", "message"),
  [
    (["--year", "2023"], 2, "--year without --aef would do nothing"),
    (["--skip-empty"], 2, "--skip-empty without --labels would do nothing"),
    (
      [
        *("--land-cover", "x", "--caption-style", "short"),
        *("--caption-seed", "1"),
      ],
      2,
      "--caption-seed would do nothing",
    ),
    (["--stretch", "x", "--bands", "VV"], 2, "--stretch sets --bands"),
    (["--aef", "nowhere"], 1, "nowhere"),
    (["--labels", "nowhere.csv"], 1, "nowhere.csv"),
    (["--stretch", "nowhere.json"], 1, "nowhere.json"),
    (["--bands", "HH"], 1, "no band 'HH'"),
    (["--calibrate", "sigma0"], 1, "no calibration to sigma0 is known"),
    (["--license", " "], 1, "license of the data is blank"),
    (["--percentiles", "9", "3"], 1, "rising order"),
    (["--min-valid", "0"], 1, "min_valid must be in (0, 1]"),
    (["--nodata", "none", "--overlap", "504"], 1, "0 <= overlap < size"),
  ],
)
def test_after_an_error_nothing_is_written(
  tmp_path, scene, call, arguments, code, message
):
  out = tmp_path / "out"
  done = call(main, "--sar", scene, "--out", out, *TERMS, *arguments)
  assert done.code == code
  assert message in done.err
  assert not out.exists()
