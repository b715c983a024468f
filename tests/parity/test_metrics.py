"""Metrics against the libraries of the field: COCO, shapely and scipy.

Average precision against pycocotools, caption scores against pycocoevalcap (the
scorers that need no Java), rotated IoU against shapely, intervals and tests
against scipy.stats.

`tests/metrics/golden_coco.json` holds two sets with the results of pycocotools
for the tests without it; run as a program, this file writes it again:

    python tests/parity/test_metrics.py
"""

import contextlib
import importlib
import io
import json
import pathlib

import numpy as np
import pytest
from scipy import stats

from fusar_jax.metrics import intervals, paired_tests, text_metrics
from fusar_jax.metrics.average_precision import average_precision
from fusar_jax.metrics.iou import rotated_iou
from fusar_jax.tasks import rotated_boxes
from fusar_jax.tasks.boxes import Parsed, as_boxes

GOLDEN = pathlib.Path(__file__).parents[1] / "metrics" / "golden_coco.json"
# In the order of pycocotools' stats.
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def random_boxes(seed: int, images: int, crowded: bool):
  """[(true items, predicted items)]: [x1, y1, x2, y2, label, score].

  Whole pixels, all areas; some boxes are found, some missed, some duplicated,
  some spurious. Few distinct scores, so many are equal.
  """
  rng = np.random.default_rng(seed)
  pairs = []
  for _ in range(images):
    n = int(rng.integers(0, 60 if crowded else 6))
    low = rng.integers(0, 60 if crowded else 300, (n, 2))
    side = np.exp(rng.uniform(np.log(6), np.log(250), (n, 2))).astype(int)
    true = np.concatenate([low, low + side], 1)
    names = rng.choice(["plane", "ship", "tank"], n, p=[0.3, 0.6, 0.1])
    at = np.flatnonzero(np.tile(rng.uniform(size=n) < 0.8, 2)) % max(n, 1)
    given = true[at] + rng.integers(-8, 9, (len(at), 4))
    given[:, 2:] = np.maximum(given[:, 2:], given[:, :2] + 1)
    called = np.where(rng.uniform(size=len(at)) < 0.9, names[at], "ship")
    scores = rng.integers(0, 20, len(at)) / 20
    pairs.append(
      (
        [[*b, str(c)] for b, c in zip(true.tolist(), names)],
        [[*b, str(c), s] for b, c, s in zip(given.tolist(), called, scores)],
      )
    )
  return pairs


def coco_stats(coco_module, eval_module, pairs) -> list[float]:
  """Results of pycocotools; -1 if there are no true boxes."""
  names = sorted({item[4] for true, _ in pairs for item in true})
  rows, results = [], []
  for image, (true, given) in enumerate(pairs, start=1):
    for boxes, items in ((rows, true), (results, given)):
      for x1, y1, x2, y2, name, *score in items:
        if name not in names:
          continue
        boxes.append(
          {
            "id": len(boxes) + 1,
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
    run = eval_module.COCOeval(coco, coco.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
  return [float(v) for v in run.stats[: len(NAMES)]]


def _parsed(items) -> Parsed:
  return Parsed(
    as_boxes([item[:4] for item in items]),
    tuple(item[4] for item in items),
    scores=np.array([item[5] for item in items if len(item) > 5], np.float32),
  )


@pytest.mark.parametrize("seed", range(6))
def test_average_precision(seed, reference_package):
  coco = reference_package("pycocotools.coco")
  cocoeval = reference_package("pycocotools.cocoeval")
  pairs = random_boxes(seed, 8, crowded=seed % 2 == 1)
  metrics = average_precision(
    [_parsed(given) for _, given in pairs], [_parsed(true) for true, _ in pairs]
  )
  ours = [-1 if metrics[name] is None else metrics[name] for name in NAMES]
  theirs = coco_stats(coco, cocoeval, pairs)
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("references", [1, 3])
def test_caption_scores(references, reference_package):
  """60 texts of 1 to 20 of 15 words; scores per text and of the corpus."""
  bleu = reference_package("pycocoevalcap.bleu.bleu").Bleu(4)
  rouge = reference_package("pycocoevalcap.rouge.rouge").Rouge()
  cider = reference_package("pycocoevalcap.cider.cider").Cider()
  rng = np.random.default_rng(references)

  def text():
    return " ".join(f"w{k}" for k in rng.integers(0, 15, rng.integers(1, 21)))

  true = {i: [text() for _ in range(references)] for i in range(60)}
  # A part of each text is that of a reference, so that long n-grams match.
  # Single spaces: the reference counts an empty word between two of them.
  given = {i: [f"{true[i][-1][:30].strip()} {text()}"] for i in true}
  found = text_metrics.compare([t for (t,) in given.values()], [*true.values()])
  values, _ = text_metrics.summary(found, [*true])
  corpus, _ = bleu.compute_score(true, given, verbose=0)
  rouge_l, each_rouge = rouge.compute_score(true, given)
  cider_d, each_cider = cider.compute_score(true, given)
  np.testing.assert_allclose(
    [values[name] for name in text_metrics.NAMES],
    [*corpus, rouge_l, cider_d],
    rtol=1e-6,
  )
  np.testing.assert_allclose(found.rouge_l, each_rouge, rtol=1e-9)
  np.testing.assert_allclose(found.cider, each_cider, rtol=1e-9, atol=1e-12)


def test_rotated_iou(reference_package):
  """All pairs of 60 boxes; a third of the pairs overlap."""
  shapely = reference_package("shapely")
  rng = np.random.default_rng(1)
  low = rng.uniform(0, 60, (60, 2))
  sides, angle = rng.uniform(1, 40, (60, 2)), rng.uniform(-180, 360, (60, 1))
  boxes = np.concatenate([low, low + sides, angle], 1).astype(np.float32)
  polygons = shapely.polygons(rotated_boxes.corners(boxes))
  both = shapely.intersection(polygons[:, None], polygons[None])
  either = shapely.union(polygons[:, None], polygons[None])
  expected = shapely.area(both) / shapely.area(either)
  assert (expected > 0).mean() > 0.3
  # The areas of the sides are those of float32 coordinates.
  np.testing.assert_allclose(rotated_iou(boxes, boxes), expected, atol=1e-6)


@pytest.mark.parametrize("n", [1, 7, 116, 5000])
def test_wilson_interval(n):
  for k in {0, 1, n // 3, n - 1, n}:
    expected = stats.binomtest(k, n).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(intervals.wilson(k, n), expected, atol=1e-12)


def test_mcnemar_is_the_binomial_test():
  for a, b in ((0, 1), (5, 0), (2, 8), (30, 30), (61, 84), (2400, 2600)):
    first = np.arange(a + b) < a
    p = paired_tests.mcnemar(first, ~first).p
    expected = stats.binomtest(a, a + b).pvalue if a + b else 1
    assert p == pytest.approx(expected, rel=1e-9)


def test_bootstraps():
  """F1 over 80 images, and the difference of two models on them.

  The intervals are about 0.1 wide; resamples are random in both.
  """
  rng = np.random.default_rng(0)
  wanted = rng.integers(1, 9, 80)
  first = np.stack([rng.binomial(wanted, 0.7), wanted], 1)
  second = np.stack([rng.binomial(wanted, 0.6), wanted], 1)

  def expected(statistic, *columns):
    return stats.bootstrap(
      columns,
      statistic,
      paired=True,
      vectorized=True,
      n_resamples=9999,
      method="percentile",
      rng=1,
    ).confidence_interval

  def ratio(a, b, axis=-1):
    return a.sum(axis) / b.sum(axis)

  def difference(a, b, c, d, axis=-1):
    return ratio(a, b, axis) - ratio(c, d, axis)

  ours = intervals.bootstrap(first, intervals.ratio_of_sums, resamples=9999)
  np.testing.assert_allclose(ours, expected(ratio, *first.T), atol=0.003)
  _, ours, _ = paired_tests.paired_bootstrap(first, second)
  np.testing.assert_allclose(
    ours, expected(difference, *first.T, *second.T), atol=0.004
  )


def main() -> None:
  modules = map(
    importlib.import_module, ("pycocotools.coco", "pycocotools.cocoeval")
  )
  coco, cocoeval = modules
  sets = []
  for seed, crowded, images in ((11, False, 12), (12, True, 3)):
    pairs = random_boxes(seed, images, crowded)
    sets.append({"pairs": pairs, "stats": coco_stats(coco, cocoeval, pairs)})
  GOLDEN.write_text(json.dumps({"sets": sets}) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
