"""`simulate` is deterministic for any workers, and matches `prepare`."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax import prepare
from fusar_jax import simulate as command
from fusar_jax.data.triplets import read_manifest
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.simulation.covers import REGIONS
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.tasks import captioning
from fusar_jax.tasks.predictions import TASKS

PLAN = Plan(scenes=18, seed=3, size=96, rasters=True)


def contents(folder):
  return {
    file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest()
    for file in folder.rglob("*")
    if file.is_file()
  }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("simulated") / "set"
  simulate(out, PLAN)
  return out


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
  """The same scenes, imported by `prepare` from their rasters."""
  out = tmp_path_factory.mktemp("prepared") / "set"
  rasters = folder / "rasters"
  code = prepare.main(
    [
      *("--sar", *map(str, sorted((rasters / "sar").iterdir()))),
      *("--aef", str(rasters / "aef"), "--year", "2024", "--limit", "9"),
      *("--labels", *map(str, sorted((rasters / "labels").iterdir()))),
      *("--label-field", "label", "--empty-scenes"),
      *("--land-cover", str(rasters / "land_cover")),
      *("--features", *map(str, sorted((rasters / "features").iterdir()))),
      *("--caption-style", "short"),
      *("--stretch", str(folder / "dataset.json"), "--size", str(PLAN.size)),
      *("--source", "simulated", "--license", "Apache-2.0", "--out", str(out)),
    ]
  )
  assert code == 0
  return out


def by_scene(folder):
  """Rows of a manifest, by the scene that their metadata names."""
  found = {}
  for row in read_manifest(folder / "manifest.jsonl"):
    found.setdefault(row.extra["metadata"]["scene"], []).append(row)
  return found


def test_workers_write_the_same_bytes(folder, tmp_path):
  simulate(tmp_path / "b", PLAN, workers=2)
  assert contents(tmp_path / "b") == contents(folder)


def test_files_belong_together(folder):
  rows = read_manifest(folder / "manifest.jsonl")
  assert {row.task for row in rows} == set(TASKS)
  for row in rows:
    image = np.asarray(Image.open(row.images[0]))
    assert image.shape == row.coordinate_size == (96, 96)
    assert image.dtype == np.uint8
    assert len(read_anchors(row.anchors[0])) == 81
  captions = read_manifest(folder / "captions.jsonl")
  tasks = read_manifest(folder / "tasks.jsonl")
  assert {row.task for row in captions} == {"captioning"}
  assert len(captions) == PLAN.scenes
  assert len(captions) + len(tasks) == len(rows)


def test_prepare_gives_the_same_pictures_anchors_and_boxes(folder, prepared):
  """Exact equality: simulated and real scenes share one code path."""
  ours, theirs = by_scene(folder), by_scene(prepared)
  assert set(ours) == set(theirs)
  boxes = 0
  for name, rows in ours.items():
    caption = next(row for row in rows if row.task == "captioning")
    other = theirs[name][0]
    assert caption.images[0].read_bytes() == other.images[0].read_bytes()
    anchors, again = (read_anchors(r.anchors[0]) for r in (caption, other))
    np.testing.assert_array_equal(anchors.features, again.features)
    np.testing.assert_array_equal(anchors.positions, again.positions)
    message = [
      (label, box)
      for row in theirs[name]
      if row.task == "detection"
      for label, box in zip(row.extra["labels"], row.extra["boxes"])
    ]
    true = zip(caption.extra["labels"], caption.extra["boxes"])
    assert sorted(message) == sorted(true)
    boxes += len(message)
    footprint, distance = (
      caption.extra["metadata"][key] == other.extra["metadata"][key]
      for key in ("footprint", "ground_sampling_distance")
    )
    assert footprint
    assert distance
  assert boxes >= 10


def test_prepare_gives_the_same_captions(folder, prepared):
  """The description of a scene survives its way through public formats.

  Labels have whole pixels: a target on a line of the 3 x 3 grid may move into
  the next cell.
  """
  ours, theirs = by_scene(folder), by_scene(prepared)
  moved = 0
  for name, rows in ours.items():
    one, two = (
      next(row for row in each if row.task == "captioning")
      for each in (rows, theirs[name])
    )
    a, b = (captioning.parse(row.answer).fields for row in (one, two))
    differ = {field for field in a if a[field] != b[field]}
    assert differ <= {"Distribution"}, name
    if differ:
      x0, y0, x1, y1 = np.array(one.extra["boxes"]).T / 2
      lines = np.abs(np.stack([x0 + x1, y0 + y1])[..., None] - [32, 64])
      assert lines.min() <= 0.5, name
      moved += 1
  assert moved <= 1


def test_the_card_records_how_it_was_made(folder):
  card = json.loads((folder / "dataset.json").read_text())
  assert card["plan"]["seed"] == 3
  assert card["images"] == len(card["scenes"]) == 18
  assert {scene["region"] for scene in card["scenes"]} == set(REGIONS)
  assert "Google DeepMind" in card["ground_statistics"]["alphaearth"]
  data = (folder / "manifest.jsonl").read_bytes()
  assert card["sha256"]["manifest.jsonl"] == hashlib.sha256(data).hexdigest()


def test_a_full_folder_is_left_alone(tmp_path, capsys):
  (tmp_path / "mine.txt").write_text("mine")
  code = command.main(["--out", str(tmp_path), "--scenes", "1"])
  assert code == 1
  assert "is not empty" in capsys.readouterr().err
  assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_unknown_tasks_are_named(tmp_path, capsys):
  code = command.main(["--out", str(tmp_path / "a"), "--tasks", "cuonting"])
  assert code == 1
  assert "cuonting" in capsys.readouterr().err
  assert not (tmp_path / "a").exists()


def test_tasks_that_nothing_answers_are_listed(tmp_path, capsys):
  """At least one of 20 seeds has a first scene without targets."""
  args = ["--scenes", "1", "--size", "64", "--workers", "1"]
  for seed in range(20):
    out = tmp_path / str(seed)
    more = ["--seed", str(seed), "--out", str(out), "--tasks", "classification"]
    if command.main([*args, *more]) == 1:
      assert "they hold no target" in capsys.readouterr().err
      assert not out.exists()
      return
  pytest.fail("no scene without a target among 20")


def test_the_options_reach_the_scenes(tmp_path):
  out = tmp_path / "a"
  args = ["--out", str(out), "--scenes", "3", "--size", "64", "--workers", "1"]
  more = ["--tasks", "captioning", "--gsd", "4.5", "--anchors", "3"]
  assert command.main([*args, *more]) == 0
  assert not (out / "tasks.jsonl").exists()
  assert not (out / "rasters").exists()
  rows = read_manifest(out / "captions.jsonl")
  assert len(rows) == 3
  for row in rows:
    distance = row.extra["metadata"]["ground_sampling_distance"]
    np.testing.assert_allclose(distance, 4.5, rtol=1e-3)
    assert len(read_anchors(row.anchors[0])) == 9
