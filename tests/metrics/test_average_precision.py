"""COCO average precision against hand calculations and pycocotools.

The golden file contains a random set and the results of pycocotools 2.0.11.
With pycocotools installed, running this file as a program regenerates it:

    python tests/metrics/test_average_precision.py
"""

import contextlib
import doctest
import io
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


def random_set(seed: int, images: int, crowded: bool):
  """[(true items, predicted items)], whole pixels, of all areas."""
  rng = np.random.default_rng(seed)
  pairs = []
  for _ in range(images):
    n = int(rng.integers(0, 60 if crowded else 6))
    low = rng.integers(0, 60 if crowded else 300, (n, 2))
    side = np.exp(rng.uniform(np.log(6), np.log(250), (n, 2))).astype(int)
    true = np.concatenate([low, low + side], 1)
    names = rng.choice(["plane", "ship", "tank"], n, p=[0.3, 0.6, 0.1])
    # Some boxes are found, some missed, some duplicated, some spurious.
    at = np.flatnonzero(np.tile(rng.uniform(size=n) < 0.8, 2))[: 2 * n] % max(
      n, 1
    )
    given = true[at] + rng.integers(-8, 9, (len(at), 4))
    given[:, 2:] = np.maximum(given[:, 2:], given[:, :2] + 1)
    called = np.where(rng.uniform(size=len(at)) < 0.9, names[at], "ship")
    # Few distinct scores, so many are equal.
    scores = rng.integers(0, 20, len(at)) / 20
    pairs.append(
      (
        [[*b, str(c)] for b, c in zip(true.tolist(), names)],
        [[*b, str(c), s] for b, c, s in zip(given.tolist(), called, scores)],
      )
    )
  return pairs


def coco_stats(pairs) -> list[float]:
  """Results of pycocotools; -1 if there are no true boxes."""
  coco_module = pytest.importorskip("pycocotools.coco")
  from pycocotools.cocoeval import COCOeval

  names = sorted({item[4] for true, _ in pairs for item in true})
  rows, results = [], []
  for image, (true, given) in enumerate(pairs, start=1):
    for box, items in ((rows, true), (results, given)):
      for x1, y1, x2, y2, name, *score in items:
        if name not in names:
          continue
        box.append(
          {
            "id": len(box) + 1,
            "image_id": image,
            "category_id": names.index(name) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            **({"score": score[0]} if score else {}),
          }
        )
  coco = coco_module.COCO()
  coco.dataset = {
    "info": {},
    "images": [{"id": i} for i in range(1, len(pairs) + 1)],
    "categories": [{"id": i, "name": n} for i, n in enumerate(names, start=1)],
    "annotations": rows,
  }
  with contextlib.redirect_stdout(io.StringIO()):
    coco.createIndex()
    run = COCOeval(coco, coco.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
  return [float(v) for v in run.stats[: len(NAMES)]]


def ours(pairs) -> list[float]:
  """The same results of this package, without the bootstrap."""
  metrics = average_precision(
    [parsed(given) for _, given in pairs],
    [parsed(true, scores=False) for true, _ in pairs],
  )
  return [-1 if metrics[name] is None else metrics[name] for name in NAMES]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
  """Intervals have their own test; computing them here is slow."""
  monkeypatch.setattr(module.intervals, "RESAMPLES", 100)
  monkeypatch.setattr(module, "_MIN_RESAMPLES", 10)
  monkeypatch.setattr(module, "_CELLS", 100_000)


def test_equal_to_pycocotools_golden_numbers():
  golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
  assert len(golden["sets"]) == 2
  for one in golden["sets"]:
    assert -1 not in one["stats"]
    np.testing.assert_allclose(ours(one["pairs"]), one["stats"], atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_pycocotools(seed):
  pairs = random_set(seed, 8, crowded=seed % 2 == 1)
  np.testing.assert_allclose(ours(pairs), coco_stats(pairs), atol=1e-6)


def test_pairs_in_pieces_are_the_same_pairs(monkeypatch):
  pairs = random_set(1, 4, crowded=True)
  whole = ours(pairs)
  monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 7)
  assert ours(pairs) == whole


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
  metrics = average_precision(
    [parsed(of) for of in given], [parsed(of, scores=False) for of in true]
  )
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


def test_boxes_without_a_score_are_told():
  truth = parsed([[0, 0, 4, 4, "ship"]], scores=False)
  with pytest.raises(ValueError, match="1 of 1 answers hold boxes without"):
    average_precision([truth], [truth])


def test_intervals_narrow_with_more_images():
  def width(images):
    pairs = random_set(3, images, crowded=False)
    low, high = average_precision(
      [parsed(given) for _, given in pairs],
      [parsed(true, scores=False) for true, _ in pairs],
    )["ci95"]["ap50"]
    return high - low

  assert 0 < width(80) < width(8)


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


def test_examples():
  found = doctest.testmod(module)
  assert (found.attempted > 0, found.failed) == (True, 0)


def main() -> None:
  sets = []
  for seed, crowded, images in ((11, False, 12), (12, True, 3)):
    pairs = random_set(seed, images, crowded)
    sets.append({"pairs": pairs, "stats": coco_stats(pairs)})
  GOLDEN.write_text(json.dumps({"sets": sets}) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
