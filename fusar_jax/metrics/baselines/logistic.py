"""Multinomial logistic regression, with an L2 penalty, by L-BFGS."""

import dataclasses

import numpy as np

from fusar_jax.metrics.baselines.rows import Answers

FOLDS = 5
# More answers than this are not classes but texts.
MAX_CLASSES = 64
_L2 = 1e-3
_MAX_STEPS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic:
  """Fitted regression.

  Attributes:
    weights: float64[f + 1, classes]; the last row is the bias.
    answers: answers of the training rows, of one part.
    accuracy: cross-validated share of right answers in training.
  """

  weights: np.ndarray
  answers: Answers
  accuracy: float
  name = "logistic regression"

  def __call__(self, features: np.ndarray) -> list[str]:
    """Returns one answer per row of float64[m, f]."""
    codes = _predict(self.weights, features)
    return [self.answers.text([code]) for code in codes]


def fit(features, answers: Answers, images: np.ndarray) -> Logistic | None:
  """Returns the regression, or None if it does not apply.

  It applies to one text per answer with 2 to MAX_CLASSES different ones.
  Cross-validation has FOLDS folds; rows of one image are in the same fold.

  Args:
    features: float64[n, f] of the training rows.
    answers: of these rows.
    images: int[n]; rows of one image have the same number.
  """
  classes = len(answers.texts[0])
  if len(answers.names) > 1 or not 2 <= classes <= MAX_CLASSES:
    return None
  codes, folds = answers.codes[:, 0], images % FOLDS
  right = np.zeros(len(codes), bool)
  for fold in np.unique(folds):
    kept = folds != fold
    if kept.any():
      weights = _weights(features[kept], codes[kept], classes)
      right[~kept] = _predict(weights, features[~kept]) == codes[~kept]
  return Logistic(
    _weights(features, codes, classes), answers, float(right.mean())
  )


def _predict(weights, features) -> np.ndarray:
  return (features @ weights[:-1] + weights[-1]).argmax(1)


def _weights(features, codes, classes) -> np.ndarray:
  return fit_weights(
    features, codes, classes, penalty=_L2, max_steps=_MAX_STEPS
  )


def fit_weights(
  features: np.ndarray,
  codes: np.ndarray,
  classes: int,
  *,
  penalty: float,
  start: np.ndarray | None = None,
  max_steps: int = 15_000,
) -> np.ndarray:
  """Returns float64[f + 1, classes]; the last row is the bias.

  Minimises the mean cross-entropy plus penalty / 2 times the squared weights,
  except those of the bias.

  Args:
    features: float[n, f].
    codes: int[n], below `classes`.
    classes: number of classes.
    penalty: of the squared weights.
    start: weights to start from (default: zeros).
    max_steps: of L-BFGS.
  """
  # Imported here: scipy.optimize takes 0.3 s, and most commands fit nothing.
  from scipy import optimize

  inputs = np.concatenate([features, np.ones((len(features), 1))], axis=1)
  truth = np.eye(classes)[codes]

  def loss(flat):
    weights = flat.reshape(-1, classes)
    logits = inputs @ weights
    logits -= logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits).sum(1, keepdims=True))
    shrunk = weights * penalty
    shrunk[-1] = 0
    gradient = inputs.T @ (np.exp(logits - log_sum) - truth) / len(inputs)
    value = ((log_sum - logits) * truth).sum() / len(inputs)
    return value + (shrunk * weights).sum() / 2, (gradient + shrunk).ravel()

  first = np.zeros((inputs.shape[1], classes)) if start is None else start
  found = optimize.minimize(
    loss,
    first.ravel(),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": max_steps},
  )
  return found.x.reshape(-1, classes)
