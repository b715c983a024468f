"""Intervals: known values, and the bootstrap against drawing one by one."""

import numpy as np
import pytest

from fusar_jax.metrics import (
  captioning_scores,
  detection_scores,
  intervals,
  sarchat_scores,
)
from fusar_jax.tasks import captioning
from fusar_jax.tasks.predictions import Prediction


@pytest.mark.parametrize(
  ("k", "n", "low", "high"),
  [
    # 5 of 10 by hand: centre 0.5, half width 1.96 * sqrt(.025 + .0096) / 1.384.
    (5, 10, 0.2366, 0.7634),
    # Nothing of 10: from 0 to z2 / (n + z2) = 3.8415 / 13.8415.
    (0, 10, 0.0, 0.2775),
    (10, 10, 0.7225, 1.0),
    (0, 0, 0.0, 1.0),
  ],
)
def test_wilson(k, n, low, high):
  assert intervals.wilson(k, n) == pytest.approx([low, high], abs=1e-4)


def test_wilson_rejects_more_hits_than_trials():
  with pytest.raises(ValueError, match="k = 3, n = 2"):
    intervals.wilson(3, 2)


@pytest.mark.parametrize("n", [80, 800], ids=["distinct", "repeated"])
def test_bootstrap_agrees_with_drawing_images_one_by_one(n):
  """16 distinct rows, among few images and among many."""
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 4, (n, 2)) + np.array([0, 1])

  def ratio(sums):
    return sums[:, 0] / sums[:, 1]

  draws = rng.integers(0, n, (5000, n))
  slow = np.percentile(ratio(counts[draws].sum(1)), [2.5, 97.5])
  fast = intervals.bootstrap(counts, ratio, resamples=5000)
  # The intervals are 0.22 and 0.07 wide.
  np.testing.assert_allclose(fast, slow, atol=0.005)


def test_bootstrap_is_repeatable_and_independent_of_order():
  counts = np.random.default_rng(1).integers(0, 5, (50, 1))
  mean = lambda s: s[:, 0] / 50  # noqa: E731
  first = intervals.bootstrap(counts, mean)
  assert first == intervals.bootstrap(counts[::-1], mean)
  assert first != intervals.bootstrap(counts, mean, seed=1)


# Of 100 images 60 are right: a resample's share is binomial, n = 100, p = 0.6.
# Its quantiles of 2.5 and 97.5 % are 50 and 69 (of 10 and 90 %: 54 and 66). A
# thousand resamples miss a quantile by one at most.
RIGHT, IMAGES, WITHIN = 60, 100, 0.0101
BINOMIAL_95 = (0.50, 0.69)


def _rows(task, true, wrong):
  return [
    Prediction(str(i), i, task, "", true, true if i < RIGHT else wrong, 90)
    for i in range(IMAGES)
  ]


def test_95_percent_of_a_bootstrap():
  counts = np.array([[i < RIGHT, 1] for i in range(IMAGES)])
  for interval in (
    intervals.bootstrap(counts, intervals.ratio_of_sums),
    intervals.bootstrap_all(counts, {"share": intervals.ratio_of_sums})[
      "share"
    ],
  ):
    np.testing.assert_allclose(interval, BINOMIAL_95, atol=WITHIN)


def test_95_percent_of_detection():
  """One ship an image; a missed one has no box: recall is the share."""
  ship = '[{"bbox_2d": [0, 0, 10, 10], "label": "ship"}]'
  metrics, _ = detection_scores.score(_rows("detection", ship, "None"))
  for summary in (metrics, metrics["per_class"]["ship"]):
    for name in ("recall@0.25", "recall@0.5"):
      np.testing.assert_allclose(
        summary["ci95"][name], BINOMIAL_95, atol=WITHIN
      )
    # F1 of a share r at precision 1 is 2 r / (1 + r).
    np.testing.assert_allclose(
      summary["ci95"]["f1@0.5"],
      [2 * r / (1 + r) for r in BINOMIAL_95],
      atol=WITHIN,
    )


def test_95_percent_of_captions():
  true = captioning.answer(dict.fromkeys(captioning.FIELDS, "wide"))
  metrics, _ = captioning_scores.score(_rows("captioning", true, "?"))
  for name in ("accuracy", "word_f1", "rouge_l"):
    assert metrics[name] == pytest.approx(RIGHT / IMAGES)
    np.testing.assert_allclose(metrics["ci95"][name], BINOMIAL_95, atol=WITHIN)


@pytest.mark.parametrize(
  ("subtask", "true", "names"),
  [
    ("classification", "A ship.", ["acc"]),
    ("referring", "{<0><0><10><10>}", ["acc@0.25", "acc@0.5"]),
    ("description", "A ship at the top.", ["acc", "rouge_l"]),
  ],
)
def test_95_percent_of_sarchat(subtask, true, names):
  """An empty answer has no matches and no predicted boxes."""
  metrics, _ = sarchat_scores.score(_rows(f"sarchat-{subtask}", true, "?"))
  for name in names:
    assert metrics[name] == pytest.approx(RIGHT / IMAGES)
    np.testing.assert_allclose(metrics["ci95"][name], BINOMIAL_95, atol=WITHIN)


def test_captions_of_one_image_are_resampled_together():
  true = captioning.answer(dict.fromkeys(captioning.FIELDS, "wide"))
  rows = [
    Prediction(name, i, "captioning", "", true, text, 90, "a.png")
    for i, (name, text) in enumerate([("right", true), ("unread", "?")])
  ]
  metrics, _ = captioning_scores.score(rows)
  for name in ("accuracy", "word_f1", "rouge_l"):
    assert metrics["ci95"][name] == [0.5, 0.5]
