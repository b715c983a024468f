"""One command's worth of work: tiles of scenes, answers, findings, files.

  OUT/tiles/             the data set that `prepare` makes, manifest included
  OUT/predictions.jsonl  the answers, as `predict` writes them
  OUT/SCENE.geojson, SCENE.gpkg, SCENE.png    findings of one scene
  OUT/findings.csv       all findings, in pixels of their scenes
  OUT/index.html         scenes, findings and answers to look at

Each part resumes: tiles and answers that exist are not made again.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.data.manifest_row import Triplet
from fusar_jax.data.triplets import raise_together, read_manifest
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.targets import Target
from fusar_jax.datasets.prepare.labels import Labels
from fusar_jax.datasets.prepare.preparation import Plan, prepare_scenes
from fusar_jax.datasets.prepare.scene_names import names_of, scene_paths
from fusar_jax.datasets.prepare.sources import Scene, open_scenes
from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.stretch import Stretch
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import identity, predict
from fusar_jax.interpretation.findings import (
  Finding,
  TileBox,
  Window,
  merge,
)
from fusar_jax.io.strict_json import read_rows
from fusar_jax.metrics.box_matching import match
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.tasks import counting
from fusar_jax.tasks.boxes import Parsed, as_boxes, parse_boxes
from fusar_jax.training.resume_config import check_resume_config

TILES, ANSWERS, SETTINGS = "tiles", "predictions.jsonl", "interpret.json"


@dataclasses.dataclass(frozen=True)
class TileAnswer:
  """What a model says of one tile.

  Attributes:
    window: of the tile.
    task: of the question, or None.
    label: the class asked for, or "".
    question, answer: texts.
    count: of a counting question, None if it cannot be read.
    error: why boxes or a count cannot be read, or None.
    truncated: the answer reached the limit of tokens.
  """

  window: Window
  task: str | None
  label: str
  question: str
  answer: str
  count: int | None = None
  error: str | None = None
  truncated: bool = False


@dataclasses.dataclass(frozen=True)
class SceneAnswers:
  """All about one scene.

  Attributes:
    name: as in ids and file names.
    path: of the raster.
    size: (height, width), pixels.
    place: its georeference, or None.
    stretches: with which its tiles were made.
    tiles: answers of its tiles.
    findings: merged boxes of detection answers.
    tile_boxes: boxes before they were merged.
    scores: of the findings against labels, {"f1@0.25": ..., ...}, or None.
  """

  name: str
  path: Path
  size: tuple[int, int]
  place: Georeference | None
  stretches: Sequence[Stretch]
  tiles: Sequence[TileAnswer]
  findings: Sequence[Finding]
  tile_boxes: int
  scores: Mapping[str, Any] | None


def interpret(
  model: str | os.PathLike,
  paths: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  plan: Plan,
  origin: Origin,
  options: PredictionOptions,
  *,
  assistant: Assistant | None = None,
  archive: Archive | Callable[[Sequence[Scene]], Archive] | None = None,
  read_labels: Callable[[Sequence[Scene]], Labels] | None = None,
  on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> list[SceneAnswers]:
  """Cuts scenes, answers every tile and merges the answers by scene.

  Args:
    model, options, assistant: as `predict`.
    paths: SAR rasters.
    out: folder; an interrupted call continues.
    plan: how to cut, and what to ask (`asked`).
    origin: of the scenes.
    archive: of the anchors, as in `prepare_scenes`, or None.
    read_labels: returns the truth to score against, see `prepare.labels`.
    on_tile: called with (tiles done, total tiles).

  Raises:
    FileExistsError: `out` holds the results of other settings.
    FileNotFoundError, ValueError: as `prepare_scenes` and `predict`.
  """
  out = Path(out)
  truth = {}
  if read_labels is not None:
    # Fails before hours of work if the labels cannot be used.
    scenes, problems = open_scenes(paths, plan.look, plan.year)
    raise_together(problems, "SAR rasters that cannot be used")
    truth = read_labels(scenes).targets
  card = prepare_scenes(
    paths, out / TILES, plan, origin, archive=archive, on_tile=on_tile
  )
  manifest = out / TILES / "manifest.jsonl"
  rows = read_manifest(manifest)[: options.limit]
  settings = identity(model, manifest, rows, options.adapter)
  check_resume_config(out / SETTINGS, settings | options.resume_settings())
  if not (out / ANSWERS).is_file():
    predict(model, manifest, out / ANSWERS, options, assistant=assistant)
  predictions = list(read_rows(out / ANSWERS))
  by_scene = collections.defaultdict(list)
  for row, prediction in zip(rows, predictions, strict=True):
    by_scene[row.extra["metadata"]["scene"]].append((row, prediction))
  expanded = scene_paths(paths)
  files = dict(zip(names_of(expanded), expanded))
  return [
    _answers(scene, files[scene["name"]], by_scene[scene["name"]], truth)
    for scene in card["scenes"]
  ]


def _answers(
  scene: Mapping[str, Any],
  path: Path,
  rows: Sequence[tuple[Triplet, Mapping[str, Any]]],
  truth: Mapping[str, Sequence[Target]],
) -> SceneAnswers:
  size = tuple(scene["size"])
  tiles, boxes = [], []
  for number, (row, prediction) in enumerate(rows):
    window = _window(row, size)
    text = prediction["prediction_text"]
    height, width = _picture_size(row)
    # As scores read it: more than the official code, by named rules.
    found = Parsed(as_boxes([]))
    if row.task == "detection":
      found = parse_boxes(text, (height, width))
    tiles.append(_tile_answer(row, prediction, window, found.error))
    x1, y1, x2, y2 = window.box
    factors = np.tile([(x2 - x1) / width, (y2 - y1) / height], 2)
    for at, name in zip(found.boxes.astype(np.float64), found.labels):
      box = _clipped(at * factors + np.tile([x1, y1], 2), window, size)
      if box is not None:
        label = name or str(row.extra.get("class", ""))
        boxes.append(TileBox(window, number, label, box.tolist(), text))
  findings = merge(boxes)
  scores = None
  if scene["name"] in truth:
    scores = _scores(findings, truth[scene["name"]], [t.label for t in tiles])
  place = scene["georeference"]
  return SceneAnswers(
    scene["name"],
    path,
    size,
    place and Georeference.from_json(place),
    [Stretch.from_json(each) for each in scene["stretches"]],
    tiles,
    findings,
    len(boxes),
    scores,
  )


def _window(row: Triplet, size: tuple[int, int]) -> Window:
  top, left, height, width = row.extra["metadata"]["window"]
  pixel = max(height, width) / max(_picture_size(row))
  name = Path(row.images[0].name).stem
  return Window(name, (left, top, left + width, top + height), pixel, size)


def _picture_size(row: Triplet) -> tuple[int, int]:
  """(height, width) of a tile's picture, as `prepare` writes it."""
  assert row.coordinate_size is not None
  return row.coordinate_size


def _tile_answer(row, prediction, window, error) -> TileAnswer:
  text, task = prediction["prediction_text"], row.task
  count = None
  if task == "counting":
    read = counting.parse(text)
    count, error = read.value, read.error
  return TileAnswer(
    window,
    task,
    row.extra.get("class", ""),
    row.question,
    text,
    count,
    error,
    bool(prediction.get("truncated")),
  )


def _clipped(box, window: Window, size) -> np.ndarray | None:
  """The box within its tile and scene; None: nothing is left of it."""
  x1, y1, x2, y2 = window.box
  high = [min(x2, size[1]), min(y2, size[0])]
  box = np.clip(box, [x1, y1, x1, y1], high * 2)
  return box if (box[2:] - box[:2] > 0).all() else None


def _scores(
  findings: Sequence[Finding], truth: Sequence[Target], asked: Sequence[str]
) -> dict[str, Any]:
  """Scores of the scene as one image, over the classes asked for."""
  truth = [target for target in truth if target.label in set(asked)]
  pairs = match(
    np.array([f.box for f in findings], np.float32).reshape(-1, 4),
    [f.label for f in findings],
    np.array([t.box for t in truth], np.float32).reshape(-1, 4),
    [t.label for t in truth],
  )
  scores: dict[str, Any] = {"predicted": len(findings), "true": len(truth)}
  for threshold in THRESHOLDS:
    matched = int((pairs.iou >= threshold).sum())
    total = len(findings) + len(truth)
    scores[f"matched@{threshold}"] = matched
    scores[f"f1@{threshold}"] = 2 * matched / total if total else 1.0
  return scores
