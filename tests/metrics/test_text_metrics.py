"""Text scores against published examples, hand calculations and COCO values.

Letters and numbers replace the words of the published examples: scores depend
only on which words are equal.
"""

import math

import numpy as np
import pytest

from fusar_jax.metrics import text_metrics


def bleu(found):
  return text_metrics.bleu(
    found.matched.sum(0),
    found.offered.sum(0),
    found.length.sum(),
    found.reference_length.sum(),
  )


# Papineni et al. 2002, section 2.1, example 1: a candidate, three references.
FIRST = "1 2 3 4 5 6 7 8 9 10 11 12 13 10 14 15 10 16"
REFERENCES = [
  "1 2 3 4 5 6 9 8 9 10 11 24 19 25 16 14",
  "1 2 10 26 27 7 28 10 11 29 12 30 31 10 32 15 10 16",
  "1 2 10 33 4 34 10 35 12 5 25 10 36 15 10 16",
]


def test_repeated_words_are_clipped_as_published():
  """Example 2: one word seven times; a reference has it twice: 2/7."""
  found = text_metrics.compare(["a a a a a a a"], [["a b c d a e", "f c b c"]])
  assert (found.matched[0, 0], found.offered[0, 0]) == (2, 7)


def test_bleu_of_a_sentence_and_a_corpus():
  """The numbers that NLTK's documentation gives for the first candidate, and
  for a corpus of it and a second sentence of eleven words.
  """
  one = text_metrics.compare([FIRST], [REFERENCES])
  assert bleu(one)[3] == pytest.approx(0.5045666840058485, abs=1e-12)
  second, reference = "a b c d e a f g h i j", "a f g h i j e a b c d"
  two = text_metrics.compare([FIRST, second], [REFERENCES, [reference]])
  assert bleu(two)[3] == pytest.approx(0.5920778868801042, abs=1e-12)


def test_brevity_penalty_by_the_closest_reference():
  """2 words; references of 3, 5: exp(1 - 3/2). At 4 of 3, 5: the shorter."""
  found = text_metrics.compare(["a b"], [["a b c d e", "a b c"]])
  assert bleu(found)[0] == pytest.approx(math.exp(-0.5))
  assert bleu(found)[2] == 0
  found = text_metrics.compare(["a b c d"], [["a b c d e", "a b c"]])
  assert found.reference_length.tolist() == [3]


def test_rouge_l_as_published(monkeypatch):
  """Lin 2004, section 3.1, where beta is 1: 3/4, and twice 2/4."""
  monkeypatch.setattr(text_metrics, "BETA", 1)
  texts = ["a kill c d", "c d kill a", "c d a b"]
  found = text_metrics.compare(texts, [["a b c d"]] * 3)
  assert found.rouge_l.tolist() == pytest.approx([3 / 4, 2 / 4, 2 / 4])


def test_rouge_l_takes_the_best_of_precision_and_of_recall():
  """2 of 4 words; references of 2 and 3 hold 2 and 1 in order: P 2/4, R 2/2.

  F = (1 + 1.44) 1/2 / (1 + 1.44 / 2) = 1.22 / 1.72.
  """
  found = text_metrics.compare(["a b x y"], [["a b", "p a q"]])
  assert found.rouge_l[0] == pytest.approx(1.22 / 1.72)


def test_common_subsequence_against_the_table():
  rng = np.random.default_rng(0)
  for _ in range(50):
    a, b = (rng.integers(0, 4, rng.integers(0, 9)).tolist() for _ in "ab")
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a):
      for j, y in enumerate(b):
        longest = max(table[i, j + 1], table[i + 1, j])
        table[i + 1, j + 1] = table[i, j] + 1 if x == y else longest
    assert text_metrics.common_subsequence(a, b) == table[-1, -1]


def test_cider_by_hand():
  """Two images, so every word of one reference weighs log 2.

  Equal texts of two words: 1 for words, 1 for pairs, no triples: 10 * 2 / 4.
  "a a" of "a b": words (2, 0) and (1, 1), clipped to 1: 1 / (2 sqrt 2); the
  pairs differ: 10 / 4 of that. "c d c" of "c d": words 2 / (sqrt 5 sqrt 2),
  clipped; pairs 1 / sqrt 2; one pair too many: exp(-1 / 72).
  """
  references = [["a b"], ["c d"]]
  found = text_metrics.compare(["a b", "c d"], references)
  assert found.cider.tolist() == pytest.approx([5, 5])
  found = text_metrics.compare(["a a", "c d c"], references)
  near = (2 / math.sqrt(10) + 1 / math.sqrt(2)) * math.exp(-1 / 72)
  assert found.cider.tolist() == pytest.approx(
    [2.5 / (2 * math.sqrt(2)), 2.5 * near]
  )


def test_words_that_all_references_have_weigh_nothing():
  found = text_metrics.compare(["a b", "a c"], [["a b"], ["a c"]])
  assert found.cider.tolist() == pytest.approx([5, 5])
  found = text_metrics.compare(["a x", "a y"], [["a b"], ["a c"]])
  assert found.cider.tolist() == [0, 0]


# Values of pycocoevalcap 1.2.
TEXTS = ["two ships lie close to a pier", "crops and trees", "a a b", "town"]
TRUE = [
  ["two ships lie close to the pier", "ships at the pier"],
  ["crops and grass and trees"],
  ["a b a", "b a", "a"],
  ["water"],
]
COCO = {
  "bleu_1": 0.7430382,
  "bleu_2": 0.6714807,
  "bleu_3": 0.5512510,
  "bleu_4": 0.5190917,
  "rouge_l": 0.6011805,
  "cider": 2.3888766,
}


def test_a_corpus_as_coco_scores_it():
  found = text_metrics.compare(TEXTS, TRUE)
  values, _ = text_metrics.summary(found, ["1", "2", "3", "4"])
  assert values == pytest.approx(COCO, abs=1e-6)


def test_an_empty_text_matches_nothing():
  found = text_metrics.compare(["", "...", "a"], [["a"], ["a"], ["..."]])
  assert not found.matched.any()
  values, intervals = text_metrics.summary(found, ["1", "2", "3"])
  assert set(values) == set(intervals) == set(text_metrics.NAMES)
  assert set(values.values()) == {0.0}


def test_a_text_without_references_is_rejected():
  with pytest.raises(ValueError, match="1 of them empty"):
    text_metrics.compare(["a", "b"], [["a"], []])
  with pytest.raises(ValueError, match="each of 2 texts, got 1 lists"):
    text_metrics.compare(["a", "b"], [["a"]])
  with pytest.raises(ValueError, match="at least one text"):
    text_metrics.compare([], [])


def test_texts_of_one_image_are_resampled_together():
  found = text_metrics.compare(["a b", "c d"], [["a b"], ["x y"]])
  together = text_metrics.summary(found, ["1", "1"])
  assert together[1]["rouge_l"] == [0.5, 0.5] == [together[0]["rouge_l"]] * 2
  assert text_metrics.summary(found, ["1", "2"])[1]["rouge_l"] == [0.0, 1.0]


def test_a_table_ranks_as_sorting_does(monkeypatch):
  """Few words or many for their number: the same scores, to the last bit."""
  rng = np.random.default_rng(0)
  drawn = [" ".join(map(str, rng.integers(0, 9, 20))) for _ in range(40)]
  texts, references = drawn[:20], [[a, b] for a, b in zip(drawn, drawn[20:])]
  scores = []
  for size in (0, 4, 10_000):
    monkeypatch.setattr(text_metrics, "_TABLE_SIZE", size)
    found = text_metrics.compare(texts, references)
    scores.append((found.cider.tolist(), found.matched.tolist()))
  assert scores[0] == scores[1] == scores[2]
