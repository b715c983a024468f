"""Scores of the baselines, and tests of a model against the strongest.

A model is better than the baselines only if it is better than the strongest
blind one, by a paired test. The strongest is chosen on the tested rows
themselves, which favours the baseline.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from fusar_jax.data.row_texts import answer_at
from fusar_jax.data.triplets import Triplet, read_manifest, require_answers
from fusar_jax.data.vision import image_size, load_image
from fusar_jax.metrics import pairing, row_scores
from fusar_jax.metrics.baselines import fitting, thumbnails
from fusar_jax.metrics.baselines import rows as rows_lib
from fusar_jax.metrics.baselines.majority import blind_rows
from fusar_jax.metrics.baselines.rows import CANVAS, Row
from fusar_jax.report.score_table import HEADLINE
from fusar_jax.report.scoring import (
  check_tasks,
  score_rows,
  task_of,
  with_truth,
)
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import Prediction

# The file of scores and tests, in a folder of scores.
BASELINES = "baselines.json"
LEVEL = 0.05
# Scores of which less is better.
_ERRORS = ("mae",)
_CANVAS = (CANVAS, CANVAS)


@dataclasses.dataclass(frozen=True)
class Tested:
  """The test of one score of a model against one baseline.

  Attributes:
    task, score: as in metrics.json.
    baseline: its name, one of `fitting.NAMES`.
    looks_at_image: the baseline is not blind.
    model, value: score of the model and of the baseline.
    difference, ci95: model - baseline, with its 95 % interval.
    p: two-sided p value: the paired bootstrap over images, or McNemar's exact
      test if that applies and gives a larger one.
    better: p < 0.05, and the difference favours the model.
    n, images: number of rows and of their images.
  """

  task: str
  score: str
  baseline: str
  looks_at_image: bool
  model: float
  value: float
  difference: float
  ci95: tuple[float, float]
  p: float
  better: bool
  n: int
  images: int


@dataclasses.dataclass(frozen=True, eq=False)
class Baselines:
  """Fitted and scored baselines of one set of rows.

  Attributes:
    metrics: baseline -> metrics, as of `score_rows`.
    samples: baseline -> one sample per row that it answers.
    about: baseline -> task -> what was fitted.
    protocol: training data and sampling, as JSON.
  """

  metrics: Mapping[str, dict]
  samples: Mapping[str, list[dict]]
  about: Mapping[str, Mapping[str, dict]]
  protocol: Mapping

  def remarks(self) -> list[str]:
    """Returns remarks on the fit: samples, leaks, unreadable images."""
    lines = [
      f"{task}: baselines are fitted on {of['used']} of {of['available']}"
      " training rows"
      for task, of in self.protocol["training_rows"].items()
      if of["used"] < of["available"] or not of["used"]
    ]
    if n := self.protocol["images_also_in_train"]:
      lines.append(
        f"{n} images of these rows are also in the training manifest: scores"
        " and tests on them prove nothing"
      )
    if n := self.protocol["unreadable_images"]:
      lines.append(
        f"{n} image files cannot be read: baselines that need them are left out"
      )
    return lines

  def as_json(self, tested: Sequence[Tested]) -> dict:
    """Returns the content of baselines.json."""
    return {
      **self.protocol,
      "baselines": {
        name: {
          "looks_at_image": name not in fitting.BLIND,
          "fitted": self.about[name],
          "metrics": metrics,
        }
        for name, metrics in self.metrics.items()
      },
      "comparisons": [dataclasses.asdict(one) for one in tested],
    }


def baseline_rows(manifest, train=None) -> list[Prediction]:
  """Returns majority-baseline answers, without images, for every row.

  Args:
    manifest: path of the manifest to answer.
    train: manifest that defines the most common answer of each task; default:
      `manifest` itself, which favours the baseline.
  """
  triplets = read_manifest(manifest)
  learned = read_manifest(train) if train else triplets
  require_answers([*triplets, *(learned if train else ())])
  check_tasks([*triplets, *(learned if train else ())])
  return blind_rows(
    [with_truth(triplet) for triplet in triplets],
    [(task_of(triplet), triplet.answer or "") for triplet in learned],
  )


def score_baselines(
  rows: Sequence[Prediction], manifest, train, *, acc50: str = "recall"
) -> Baselines:
  """Fits every baseline on a training manifest and scores it on rows.

  Args:
    rows: rows to answer, of the manifest; their predictions are ignored.
    manifest: path of the manifest of the rows.
    train: path of the training manifest; rows without an answer are skipped.
    acc50: see `score_rows`.

  Raises:
    ValueError: no training row has an answer, or an unknown task.
  """
  learned = [t for t in read_manifest(train) if t.answer is not None]
  if not learned:
    raise ValueError(f"{train}: no row has an 'answer' to fit baselines on.")
  check_tasks(learned)
  asked = {triplet.id: triplet for triplet in read_manifest(manifest)}
  images = _Images()
  answered = collections.defaultdict(list)
  about, used = collections.defaultdict(dict), {}
  for task in dict.fromkeys(row.task for row in rows):
    of_task = [t for t in learned if task_of(t) == task]
    drawn = rows_lib.sample(of_task)
    used[task] = {"used": len(drawn), "available": len(of_task)}
    ours = [row for row in rows if row.task == task]
    found = fitting.answer(
      task,
      [row for t in drawn if (row := _training_row(t, images))],
      [_test_row(asked[row.id], images) for row in ours],
    )
    for name, given in found.items():
      about[name][task] = given.about
      answered[name] += [
        _answered(row, text, images.size(asked[row.id]))
        for row, text in zip(ours, given.texts, strict=True)
      ]
  scored = {
    name: score_rows(answered[name], acc50=acc50)
    for name in fitting.NAMES
    if name in answered
  }
  shared = {t.images[0].as_posix() for t in learned} & {
    asked[row.id].images[0].as_posix() for row in rows
  }
  return Baselines(
    metrics={name: metrics for name, (metrics, _) in scored.items()},
    samples={name: samples for name, (_, samples) in scored.items()},
    about=about,
    protocol={
      "train": str(train),
      "manifest": str(manifest),
      "training_rows": used,
      "max_training_rows_per_task": rows_lib.MAX_ROWS,
      "seed": rows_lib.SEED,
      "images_also_in_train": len(shared),
      "unreadable_images": images.unreadable,
    },
  )


def compare_model(
  metrics: Mapping, samples: Sequence[Mapping], baselines: Baselines
) -> list[Tested]:
  """Tests a model's main scores against the strongest baselines.

  For each score there is one test against the strongest blind baseline, and one
  against the baseline that looks at the image, where that applies.

  Args:
    metrics, samples: of the model, on the rows of the baselines.
    baselines: see `score_baselines`.
  """
  tested = []
  for task in (task for task in row_scores.PARTS if task in metrics):
    for score in HEADLINE.get(task, tuple(row_scores.PARTS[task])):
      if score not in row_scores.PARTS[task]:
        continue
      sign = -1 if score in _ERRORS else 1
      # max: a tie goes to the first.
      values = {
        name: sign * of[task][score]
        for name, of in baselines.metrics.items()
        if task in of and score in of[task]
      }
      blind = [name for name in fitting.BLIND if name in values]
      names = [max(blind, key=values.__getitem__)] if blind else []
      names += [name for name in values if name not in fitting.BLIND]
      tested += [
        _test(task, score, sign, samples, name, baselines.samples[name])
        for name in names
      ]
  return [one for one in tested if one]


def _test(task, score, sign, samples, name, theirs) -> Tested | None:
  pairs = pairing.pair(
    [sample for sample in samples if sample["task"] == task],
    [sample for sample in theirs if sample["task"] == task],
    ("the model", name),
  )
  for one in pairing.compare([pairs], only={(task, score)}):
    # The bootstrap alone is too sure of a handful of rows.
    p = max(one.p, one.mcnemar.p) if one.mcnemar else one.p
    return Tested(
      task=task,
      score=score,
      baseline=name,
      looks_at_image=name not in fitting.BLIND,
      model=one.first,
      value=one.second,
      difference=one.difference,
      ci95=one.ci95,
      p=p,
      better=bool(p < LEVEL and sign * one.difference > 0),
      n=one.n,
      images=one.images,
    )
  return None


class _Images:
  """Sizes and thumbnails of image files, each file read once."""

  def __init__(self):
    self._sizes, self._thumbnails = {}, {}
    self.unreadable = 0

  def size(self, triplet: Triplet) -> tuple[int, int] | None:
    """Returns (height, width) of the first image; None: unreadable."""
    return self._read(self._sizes, triplet, image_size)

  def thumbnail(self, triplet: Triplet) -> np.ndarray | None:
    """Returns the thumbnail of the first image; None: unreadable."""
    if self.size(triplet) is None:
      return None
    return self._read(
      self._thumbnails,
      triplet,
      lambda file: thumbnails.thumbnail(load_image(file)),
    )

  def _read(self, cache, triplet, read):
    file = triplet.images[0]
    key = file.as_posix()
    if key not in cache:
      try:
        cache[key] = read(file)
      except (OSError, ValueError):
        cache[key] = None
        self.unreadable += 1
    return cache[key]


def _test_row(triplet: Triplet, images: _Images) -> Row:
  task = task_of(triplet)
  return Row(
    task=task,
    question=triplet.question,
    image=triplet.images[0].as_posix(),
    image_size=images.size(triplet),
    thumbnail=(images.thumbnail(triplet) if task in thumbnails.TASKS else None),
  )


def _training_row(triplet: Triplet, images: _Images) -> Row | None:
  """Returns the row with its truth; None: its boxes cannot be located."""
  row = dataclasses.replace(_test_row(triplet, images), answer=triplet.answer)
  if not _has_boxes(row.task):
    return row
  space = triplet.coordinate_size or row.image_size
  if space is None:
    return None
  row = dataclasses.replace(row, answer=answer_at(triplet, space, _CANVAS))
  if row.task != "detection":
    return row
  boxes, labels = triplet.boxes, triplet.labels
  if boxes is None:
    parsed = boxes_lib.parse_complete(triplet.answer or "", space)
    boxes, labels = parsed.boxes, parsed.labels
  fractions = boxes_lib.scale(boxes, space, _CANVAS).astype(float) / CANVAS
  return dataclasses.replace(row, boxes=fractions, labels=labels)


def _answered(row: Prediction, text: str, file_size) -> Prediction:
  size = row.size or file_size
  if size and _has_boxes(row.task):
    text = boxes_lib.scale_text(text, _CANVAS, size)
  return dataclasses.replace(row, text=text, unread=None, truncated=None)


def _has_boxes(task: str) -> bool:
  return task == "detection" or task.startswith("sarchat-")
