"""COCO average precision against hand calculations and pycocotools.

The golden file holds results of pycocotools 2.0.11, written by
`tests/parity/test_metrics.py`, which compares with the installed version.
"""

import json
import pathlib

import numpy as np
import pytest

from fusar_jax.metrics import average_precision as module
from fusar_jax.metrics.average_precision import average_precision
from fusar_jax.tasks.boxes import Parsed, as_boxes

GOLDEN = pathlib.Path(__file__).with_name("golden_coco.json")
# In the order of pycocotools' stats.
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def parsed(items, scores=True):
  """items: [x1, y1, x2, y2, label, score]."""
  return Parsed(
    as_boxes([item[:4] for item in items]),
    tuple(item[4] for item in items),
    scores=np.array([i[5] for i in items], np.float32) if scores else None,
  )


def golden() -> list[dict]:
  """Two random sets, one crowded, with the results of pycocotools."""
  return json.loads(GOLDEN.read_text(encoding="utf-8"))["sets"]


def ours(pairs) -> dict:
  """Average precision of [(true items, predicted items)]."""
  return average_precision(
    [parsed(given) for _, given in pairs],
    [parsed(true, scores=False) for true, _ in pairs],
  )


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
  """Intervals have their own test; computing them here is slow."""
  monkeypatch.setattr(module.intervals, "RESAMPLES", 100)
  monkeypatch.setattr(module, "_MIN_RESAMPLES", 10)
  monkeypatch.setattr(module, "_CELLS", 100_000)


@pytest.mark.parametrize("pairs_at_once", [module._PAIRS_AT_ONCE, 7])
def test_golden_values_of_pycocotools(pairs_at_once, monkeypatch):
  """For any number of pairs of boxes that are compared at once."""
  monkeypatch.setattr(module, "_PAIRS_AT_ONCE", pairs_at_once)
  for one in golden():
    metrics = ours(one["pairs"])
    np.testing.assert_allclose(
      [metrics[name] for name in NAMES], one["stats"], atol=1e-6
    )


def test_by_hand():
  """Two images, two ships each of 10 x 10 (small); by descending score:

  .9 right; .8 wrong; .7 right with IoU 60/100; .6 a second time on the first.
  Right 1, 1, 2, 2 of 4; precision 1, 1/2, 2/3, 1/2; monotone 1, 2/3, 2/3, 1/2.
  At .5, .55 and .6: recall 0 to .25 (26 recalls) 1, to .5 (25) 2/3, then 0.
  Above: 26 recalls of precision 1.
  """
  true = [
    [[0, 0, 10, 10, "ship"], [50, 50, 60, 60, "ship"]],
    [[0, 0, 10, 10, "ship"], [80, 80, 90, 90, "ship"]],
  ]
  given = [
    [[0, 0, 10, 10, "ship", 0.9], [0, 0, 10, 9, "ship", 0.6]],
    [[0, 0, 10, 6, "ship", 0.7], [20, 20, 30, 30, "ship", 0.8]],
  ]
  metrics = ours(list(zip(true, given)))
  low, high = 26 / 101, (26 + 25 * 2 / 3) / 101
  assert metrics["ap50"] == pytest.approx(high)
  assert metrics["ap75"] == pytest.approx(low)
  assert metrics["ap"] == pytest.approx((3 * high + 7 * low) / 10)
  assert metrics["ap_small"] == pytest.approx(metrics["ap"])
  assert metrics["ap_medium"] is metrics["ap_large"] is None
  assert metrics["per_class"] == {
    "ship": {name: metrics[name] for name in ("ap", "ap50", "ap75")}
  }
  for name, (least, most) in metrics["ci95"].items():
    assert 0 <= least <= metrics[name] <= most <= 1


def test_perfect_nothing_and_unknown():
  box = [0, 0, 40, 40]
  truth = parsed([[*box, "ship"]], scores=False)
  right, unknown = (parsed([[*box, n, 0.5]]) for n in ("ship", "plane"))
  nothing = parsed([])
  assert average_precision([right], [truth])["ap"] == pytest.approx(1)
  assert average_precision([right], [truth])["ci95"]["ap"] == pytest.approx(
    [1, 1]
  )
  assert average_precision([unknown], [truth])["ap"] == 0
  assert average_precision([nothing], [truth])["ap"] == 0
  empty = average_precision([right], [parsed([], scores=False)])
  assert (empty["ap"], empty["per_class"], empty["ci95"]) == (None, {}, {})


def test_an_answer_without_scores_is_rejected():
  truth = parsed([[0, 0, 4, 4, "ship"]], scores=False)
  with pytest.raises(ValueError, match="1 of 1 answers have boxes without"):
    average_precision([truth], [truth])


def test_95_percent_of_the_resamples(monkeypatch):
  """One ship an image, found exactly or not at all, 60 of 100: at precision 1
  AP is the recall, to one of its 101 points. Of a binomial share of n = 100 and
  p = 0.6 the quantiles of 2.5 and 97.5 % are 0.50 and 0.69 (of 10 and 90 %,
  0.54 and 0.66).
  """
  monkeypatch.setattr(module.intervals, "RESAMPLES", 1000)
  monkeypatch.setattr(module, "_MIN_RESAMPLES", 1000)
  box = [0, 0, 40, 40, "ship"]
  right, nothing = parsed([[*box, 0.5]]), parsed([])
  metrics = average_precision(
    [right if i < 60 else nothing for i in range(100)],
    [parsed([box], scores=False)] * 100,
  )
  for name in ("ap", "ap50", "ap75"):
    np.testing.assert_allclose(metrics["ci95"][name], [0.50, 0.69], atol=0.0201)
