"""Rows of simulated scenes fit their padding buckets."""

import pytest

from fusar_jax.data import prompts
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.experiments import simulated
from fusar_jax.hf.folders import resolve
from fusar_jax.simulation.questions import KINDS
from fusar_jax.tasks import counting, detection, grounding

# Maximum number of targets in a scene of 168 pixels, 36 visual tokens.
_MOST, _VISUAL = 6, [36]


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_rows_of_tasks_fit(kind):
  words = load_tokenizer(resolve("tiny-base"))
  boxes = [[140, 141, 160, 161 + k] for k in range(_MOST)]
  asked = {
    detection.question(kind): detection.answer(boxes, [kind] * _MOST),
    counting.question(kind): counting.answer(_MOST),
    grounding.question(kind): grounding.answer(boxes, (168, 168)),
  }
  (longest,) = simulated.LONGEST["tasks"]
  assert longest in simulated.LENGTHS
  lengths = []
  for question, answer in asked.items():
    ids, learned = prompts.encode_example(words, question, answer, _VISUAL)
    lengths.append(len(ids))
    assert learned.sum() <= simulated.ANSWERS[-1]
  assert max(lengths) <= longest
