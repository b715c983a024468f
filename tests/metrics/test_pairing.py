"""Paired tests against hand calculations, and rejected pairings."""

import pytest

from fusar_jax.metrics import pairing, text_metrics
from fusar_jax.metrics.paired_tests import McNemar
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks.predictions import Prediction


def answered(
  texts, gts, task="counting", question="How many ships?", per=1, groups=None
):
  """Samples of answers; every `per` rows are of one image."""
  rows = [
    Prediction(
      id=f"r{i}",
      row=i + 1,
      task=task,
      question=question,
      gt=gt,
      text=text,
      image=f"{i // per}.png",
      group=groups and groups[i],
    )
    for i, (text, gt) in enumerate(zip(texts, gts, strict=True))
  ]
  return score_rows(rows)[1]


def only(comparisons, score):
  [found] = [c for c in comparisons if c.score == score]
  return found


def test_counting_by_hand():
  """Right in 3 and 1 of 4 rows; off by 2 in all, and by 1 + 1 + 5.

  The unread answer counts as 0, as in the scores.
  """
  gts = ["1", "2", "3", "5"]
  ours = answered(["1", "2", "3", "7"], gts)
  theirs = answered(["1", "3", "2", "?"], gts)
  found = pairing.compare([pairing.pair(ours, theirs)])
  accuracy, mae = only(found, "accuracy"), only(found, "mae")
  assert (accuracy.first, accuracy.second) == (0.75, 0.25)
  assert accuracy.mcnemar == McNemar(2, 0, 0.5)
  assert (mae.first, mae.second, mae.mcnemar) == (0.5, 1.75, None)
  assert (mae.n, mae.images, mae.each) == (4, 4, (-1.25,))


def test_rows_of_one_image_are_resampled_together():
  """Two images that disagree entirely: only 4 resamples, of -1, 0 and 1."""
  gts = ["1"] * 8
  ours = answered(["1"] * 4 + ["2"] * 4, gts, per=4)
  theirs = answered(["2"] * 4 + ["1"] * 4, gts, per=4)
  found = only(pairing.compare([pairing.pair(ours, theirs)]), "accuracy")
  assert (found.n, found.images) == (8, 2)
  assert found.ci95 == (-1, 1)


def test_near_duplicates_are_resampled_together():
  """Eight images of two groups count as two; McNemar's would count eight."""
  gts, groups = ["1"] * 8, ["7"] * 4 + ["9"] * 4
  ours = answered(["1"] * 4 + ["2"] * 4, gts, groups=groups)
  theirs = answered(["2"] * 4 + ["1"] * 4, gts, groups=groups)
  found = only(pairing.compare([pairing.pair(ours, theirs)]), "accuracy")
  assert (found.n, found.images, found.ci95) == (8, 2, (-1, 1))
  assert found.mcnemar is None


def test_seeds_are_averaged_tested_and_reported_each():
  """McNemar's rows must be independent: none for several seeds.

  The interval is that of a t-test over the three seeds: 4.303 is Student's
  quantile of 2 degrees of freedom, and 0.764 their standard deviation.
  """
  gts = ["1", "2"]
  pairs = [
    pairing.pair(answered(ours, gts), answered(theirs, gts))
    for ours, theirs in (
      (["1", "2"], ["1", "3"]),
      (["1", "2"], ["0", "0"]),
      (["1", "1"], ["1", "2"]),
    )
  ]
  found = only(pairing.compare(pairs), "accuracy")
  assert found.each == (0.5, 1.0, -0.5)
  assert found.difference == pytest.approx(1 / 3)
  assert (found.n, found.images, found.mcnemar) == (2, 2, None)
  half = 4.302653 * 0.7637626 / 3**0.5
  assert found.ci95 == pytest.approx((1 / 3 - half, 1 / 3 + half))
  assert 0.5 < found.p < 0.7


def test_captions_are_tested_by_text_and_by_field():
  """ROUGE-L of a text with 5 of 6 words in order: P = R = F = 5/6."""
  gts = ["Water presence: a wide lake .", "Water presence: no water at all"]
  said = [gts[0], gts[1].replace(" at ", " in ")]
  ours = answered(gts, gts, "captioning", "Describe")
  theirs = answered(said, gts, "captioning", "Describe")
  found = pairing.compare([pairing.pair(ours, theirs)])
  rouge, cider = only(found, "rouge_l"), only(found, "cider")
  assert (rouge.first, rouge.second) == (1, pytest.approx((1 + 5 / 6) / 2))
  expected = text_metrics.compare(said, [[gt] for gt in gts]).cider
  assert cider.second == pytest.approx(expected.mean())
  assert cider.difference == pytest.approx((10 - expected[1]) / 2)
  assert (cider.n, cider.mcnemar) == (2, None)
  assert only(found, "Water").mcnemar == McNemar(1, 0, 1.0)


BOX = '[{"bbox_2d": [10, 10, 30, 30], "label": "ship"}]'


def test_detection_is_f1_of_all_boxes():
  """The first finds both boxes; the second one, and one that is none."""
  question, far = "detect ship", BOX.replace("30, 30", "900, 900")
  ours = answered([BOX, BOX], [BOX, BOX], "detection", question)
  theirs = answered([BOX, far], [BOX, BOX], "detection", question)
  found = only(pairing.compare([pairing.pair(ours, theirs)]), "f1@0.5")
  assert (found.first, found.second, found.mcnemar) == (1, 0.5, None)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda rows: rows[1:], '"r0" is missing in b'),
    (lambda rows: [*rows, {**rows[0], "id": "new"}], '"new" is missing in a'),
    (lambda rows: [*rows, dict(rows[0])], '"r0" occurs twice in b'),
    (lambda rows: [{**rows[0], "gt": "9"}, rows[1]], "another gt in b: '9'"),
    (
      lambda rows: [{**rows[0], "task": "grounding"}, rows[1]],
      "another task in b: 'grounding', not 'counting'",
    ),
  ],
)
def test_rows_that_do_not_pair_are_rejected(change, message):
  rows = answered(["1", "2"], ["1", "2"])
  with pytest.raises(ValueError, match=f"same rows(.|\n)*{message}"):
    pairing.pair(rows, change(rows), ("a", "b"))


def test_seeds_must_answer_the_same_rows():
  rows = answered(["1", "2"], ["1", "2"])
  with pytest.raises(ValueError, match="not all on the same rows"):
    pairing.compare([pairing.pair(r, r) for r in (rows, rows[:1])])
