"""Triplet to Example: the box contract, the tokens, and rejected input."""

import dataclasses
import json

import numpy as np
import pytest

from fusar_jax.data import examples as examples_lib
from fusar_jax.data.examples import build_example, example_from_ids
from fusar_jax.data.row_texts import texts
from fusar_jax.geo.anchors import Anchors
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import classification


def _answer(example, tokenizer):
  return tokenizer.decode(example.input_ids[example.answer_mask])


def test_everything_of_one_sample(triplets, tokenizer, config):
  """Row 5: a detection on picture 0, which has 3 anchors."""
  example = build_example(triplets[5], tokenizer, config)
  length = len(example.input_ids)
  assert example.grids == ((4, 6),)
  assert example.patches[0].shape == (24, 588)
  assert example.anchor_weights[0].shape == (6, 3)
  assert example.positions.shape == (3, length)
  visual = example.visual_index[example.visual_index >= 0]
  np.testing.assert_array_equal(visual, np.arange(6))
  assert (example.input_ids[example.visual_index >= 0] == 6).all()
  assert example.input_ids[-1] == config.tokens.end_of_turn
  assert example.answer_mask[-1]
  assert (example.id, example.task) == ("row5", "detection")
  assert example.coordinate_size == example.original_size == (100, 150)
  assert example.model_size == (56, 84)


def test_boxes_are_converted_once(triplets, tokenizer, config):
  """From 101 x 150 pixels to the model's 56 x 84; outside stays outside."""
  example = build_example(triplets[1], tokenizer, config)
  assert json.loads(_answer(example, tokenizer)) == [
    {"bbox_2d": [6, 11, 17, 22], "label": "ship"},
    {"bbox_2d": [-3, 0, 39, 89], "label": "ship"},
  ]


OFFICIAL = '[ {"bbox_2d":[-35,1, 529 ,7],"label": "plane"}]'
SEEN = 'Seen: [{"bbox_2d": [%s], "label": "x"}].'


@pytest.mark.parametrize(
  ("answer", "declared", "original", "seen", "expected"),
  [
    # Boxes outside the image, odd spaces: byte for byte.
    (OFFICIAL, (504, 504), (777, 333), (504, 504), OFFICIAL),
    (
      SEEN % "100, 100, 504, 504", (504, 504), (777, 333), (252, 504),
      SEEN % "100, 50, 504, 252",
    ),
    # Without a declared size they are in pixels of the file.
    ("[10, 20, 30, 40]", None, (100, 100), (50, 200), "[20, 10, 60, 20]"),
  ],
)  # fmt: skip
def test_boxes_in_texts_are_rescaled_in_place(
  triplets, answer, declared, original, seen, expected
):
  row = dataclasses.replace(
    triplets[0],
    question=answer,
    answer=answer,
    coordinate_size=declared,
    extra={},
  )
  assert texts(row, original, seen) == (expected, expected)


def test_the_box_of_a_question_is_rounded_once(triplets):
  """5.4 of 504 is 10.8 of 1008: 11, and not twice the rounded 5."""
  question = classification.question([5.4, 5.4, 9.6, 9.6], ["ship"])
  row = dataclasses.replace(
    triplets[0],
    task="classification",
    question=question,
    coordinate_size=(504, 504),
    extra={
      "boxes": [[0, 0, 1, 1], [5.4, 5.4, 9.6, 9.6]],
      "labels": ["ship", "ship"],
    },
  )
  asked, _ = texts(row, (504, 504), (1008, 1008))
  assert asked == question.replace("[5, 5, 10, 10]", "[11, 11, 19, 19]")
  # The text counts where it is of none of the row's boxes.
  row = dataclasses.replace(row, question="What is at [10, 20, 30, 40]?")
  asked, _ = texts(row, (504, 504), (1008, 1008))
  assert asked == "What is at [20, 40, 60, 80]?"


def test_boxes_round_trip_through_the_models_image(triplets, tokenizer, config):
  """Original -> answer text -> original, for random sizes and boxes.

  The text holds whole model pixels, so a corner may move by half of one.
  """
  rng = np.random.default_rng(0)
  plain = build_example(triplets[0], tokenizer, config)
  for _ in range(200):
    original = tuple(rng.integers(20, 1500, 2).tolist())
    seen = tuple((28 * rng.integers(1, 40, 2)).tolist())
    declared = original if rng.random() < 0.5 else (504, 504)
    corners = rng.uniform(-0.2, 1.2, (5, 2, 2)) * declared[::-1]
    boxes = np.sort(corners, axis=1).reshape(5, 4).astype(np.float32)
    row = dataclasses.replace(
      triplets[1],
      coordinate_size=declared,
      extra={"boxes": boxes.tolist(), "labels": ["ship"] * 5},
    )
    _, answer = texts(row, original, seen)
    example = dataclasses.replace(
      plain, coordinate_size=declared, original_size=original, model_size=seen
    )
    parsed = boxes_lib.parse_boxes(answer).boxes
    back = example.to_record_space(parsed)
    scales = np.array(declared[::-1] * 2) / np.array(seen[::-1] * 2)
    assert (np.abs(back - boxes) <= 0.501 * scales + 1e-3).all()
    np.testing.assert_allclose(
      boxes_lib.scale(example.to_original_pixels(parsed), original, declared),
      back,
      rtol=1e-5,
      atol=1e-3,
    )


def test_without_an_answer_nothing_is_supervised(triplets, tokenizer, config):
  full = build_example(triplets[0], tokenizer, config)
  example = build_example(triplets[0], tokenizer, config, with_answer=False)
  assert not example.answer_mask.any()
  np.testing.assert_array_equal(
    example.input_ids, full.input_ids[~full.answer_mask]
  )


def test_a_sample_may_be_just_as_long_as_allowed(triplets, tokenizer, config):
  length = len(build_example(triplets[0], tokenizer, config).input_ids)
  example = build_example(triplets[0], tokenizer, config, max_length=length)
  assert len(example.input_ids) == length
  with pytest.raises(ValueError, match=f"max_length is {length - 1}"):
    build_example(triplets[0], tokenizer, config, max_length=length - 1)


def test_errors_name_the_row(triplets, tokenizer, config, tmp_path):
  where = r'manifest\.jsonl row 1 \(id "row0"\)'
  with pytest.raises(ValueError, match=f"{where}.*max_length is 50"):
    build_example(triplets[0], tokenizer, config, max_length=50)
  lost = dataclasses.replace(triplets[0], images=(tmp_path / "lost.png",))
  with pytest.raises(FileNotFoundError, match=rf"{where}.*lost\.png"):
    build_example(lost, tokenizer, config)
  np.savez(tmp_path / "bad.npz", features=np.zeros((3, 60)), positions=0)
  bad = dataclasses.replace(triplets[0], anchors=(tmp_path / "bad.npz",))
  with pytest.raises(ValueError, match=rf"{where}.*bad\.npz.*\[S, 64\]"):
    build_example(bad, tokenizer, config)


def test_ids_of_ones_own(config):
  """Two images, of which the second is not resized and has anchors."""
  image = np.random.default_rng(0).integers(0, 255, (56, 84, 3), np.uint8)
  anchors = Anchors(np.ones((2, 64)), np.array([[0, 0], [1, 1]]))
  ids = [9, *[6] * 6, 9, *[6] * 6, 9]
  example = example_from_ids(ids, [image[:30], image], [None, anchors], config)
  assert example.visual_index.tolist() == [
    *[-1, *range(6)],
    *[-1, *range(6, 12)],
    -1,
  ]
  assert example.anchors[0] is example.anchor_weights[0] is None
  np.testing.assert_array_equal(
    example.patches[1], examples_lib.vision.to_patches(image)
  )


@pytest.mark.parametrize(
  ("ids", "anchors", "message"),
  [
    ([6] * 5, None, "6 visual tokens expected.*holds 5"),
    ([6] * 6, [None, None], "1 images but 2 anchors"),
    ([[6] * 6], None, r"whole numbers \[L\]"),
    ([6.0] * 6, None, r"whole numbers \[L\]"),
    ([6] * 6 + [99999], None, "outside the vocabulary"),
  ],
)
def test_ids_that_do_not_fit(config, ids, anchors, message):
  image = np.zeros((56, 84, 3), np.uint8)
  with pytest.raises(ValueError, match=message):
    example_from_ids(ids, [image], anchors, config)
