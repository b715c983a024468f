"""Intervals of scores of few images.

A percentile bootstrap over few images is too narrow, and it has no width if all
images agree: 0 of 5 images right is no proof of a score of 0. Where fewer than
FEW images are scored, or an interval has no width, it is therefore widened to
contain an exact one with one trial per image: Wilson's for scores from 0 to a
largest value, Garwood's for mean absolute errors, which have none. The score
itself and all paired tests are unchanged.

Garwood: Biometrika 28 (1936), the exact interval of a Poisson mean.
"""

from fusar_jax.metrics import intervals

FEW = 10
# Largest value of the scores that can exceed 1.
LARGEST = {"cider": 10.0, "raw_cider": 10.0}
_ERRORS = ("mae",)


def widen(metrics: dict, images: int) -> dict:
  """Returns the metrics of a task with widened "ci95", also in nested parts.

  Wilson's intervals of the rows remain.

  Args:
    metrics: of one task, as in metrics.json.
    images: number of independent images. A part with a smaller "n", such as a
      class, has at most n.

  Example: a caption is wrong in all words of 5 images.
    >>> scores = {"word_f1": 0.0, "n": 5, "ci95": {"word_f1": [0.0, 0.0]}}
    >>> low, high = widen(scores, 5)["ci95"]["word_f1"]
    >>> low, round(high, 3)
    (0.0, 0.434)
  """
  n = metrics.get("n")
  n = n if isinstance(n, int) else images
  trials = min(images, n)
  found = {
    name: widen(part, trials) if isinstance(part, dict) else part
    for name, part in metrics.items()
    if name != "ci95"
  }
  if "ci95" not in metrics:
    return found
  spans = dict(metrics["ci95"])
  for name, span in spans.items():
    value = metrics.get(name)
    # A class may have the name of a score.
    if not isinstance(value, float) or not isinstance(span, list):
      continue
    if not (0 <= value <= 1 and span == intervals.wilson(round(value * n), n)):
      spans[name] = spanning(name, value, span, trials)
  return found | {"ci95": spans}


def spanning(
  name: str, value: float, span: list[float], images: int
) -> list[float]:
  """Returns an interval [low, high], widened if it is of few images.

  Args:
    name, value, images: see `exact`.
    span: [low, high] of a bootstrap over the images.

  Example: the precision of an answer without boxes is unknown.
    >>> spanning("precision@0.5", 0.0, [0.0, 0.0], 0)
    [0.0, 1.0]
  """
  if images >= FEW and span[0] < span[1]:
    return span
  low, high = exact(name, value, images)
  return [min(span[0], low), max(span[1], high)]


def exact(name: str, value: float, images: int) -> list[float]:
  """Returns [low, high], an interval with one trial per image.

  Args:
    name: of the score, as in metrics.json.
    value: of the score.
    images: number of trials.

  Example: no error in 5 images: up to -ln(0.025) / 5.
    >>> [round(v, 3) for v in exact("mae", 0.0, 5)]
    [0.0, 0.738]
  """
  if name not in _ERRORS:
    top = LARGEST.get(name, 1.0)
    hits = min(max(value / top, 0.0), 1.0) * images
    return [top * bound for bound in intervals.wilson(hits, images)]
  from scipy import special

  total = value * images
  low = special.gammaincinv(total, 0.025) if total else 0.0
  high = special.gammaincinv(total + 1, 0.975)
  return [float(low / images), float(high / images)]
