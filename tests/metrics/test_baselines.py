"""Baselines on training sets whose best blind answer is known."""

import numpy as np
import pytest

from fusar_jax.metrics.baselines import (
  constant,
  fitting,
  logistic,
  neighbours,
  questions,
  rows,
  thumbnails,
)
from fusar_jax.metrics.baselines.rows import Answers, Row
from fusar_jax.tasks import captioning, classification, counting, detection

NAMES = ("ship", "plane")


def boxed(width, name, i):
  question = classification.question([5 * i, 0, 5 * i + width, 10], NAMES)
  return Row("classification", question, name, image=f"{i}.png")


def texts(task, train, asked):
  return {k: v.texts for k, v in fitting.answer(task, train, asked).items()}


def test_the_width_of_the_box_gives_the_class_away():
  """Ships are 40 or 10 pixels wide, planes 20.

  No line separates them, so logistic regression is the worse model.
  """
  kinds = [(40, "ship"), (20, "plane"), (10, "ship"), (20, "plane")]
  train = [boxed(*kinds[i % 4], i) for i in range(40)]
  asked = [boxed(width, "", 50) for width in (39, 21, 11)]
  assert texts("classification", train, asked) == {
    "majority": ["plane"] * 3,
    "question-only": ["ship", "plane", "ship"],
  }


def test_the_size_of_the_image_gives_the_class_away():
  """Chips of planes are 64 pixels high; the question is always the same."""
  train = [
    Row("classification", "Which class?", name, f"{i}.png", (size, 128))
    for i, (name, size) in enumerate([("ship", 128), ("plane", 64)] * 6)
  ]
  asked = [Row("classification", "Which class?", image_size=(64, 128))]
  found = texts("classification", train, [*asked, train[0]])
  assert found["image-size"] == ["plane", "ship"]
  assert found["question-only"] == ["plane", "plane"]
  # One unreadable image: the baseline is left out.
  assert "image-size" not in texts(
    "classification", [*train, Row("classification", "", "ship")], asked
  )


def test_the_nearest_thumbnail_of_the_same_question():
  def row(question, answer, pixel):
    return Row("counting", question, answer, thumbnail=np.eye(1024)[pixel])

  train = [row("ships?", "3", 0), row("ships?", "1", 1), row("cars?", "0", 0)]
  asked = [row("ships?", "", 0), row("cars?", "", 1), row("bridges?", "", 1)]
  assert texts("counting", train, asked)["thumbnail-1-nn"] == ["3", "0", "1"]
  # Alike is what has the same contrasts, whatever the brightness.
  pixels = np.random.default_rng(0).integers(0, 200, (32, 32, 1), np.uint8)
  dark, bright = (
    thumbnails.thumbnail(np.repeat(p, 3, axis=2))
    for p in (pixels, pixels // 2 + 100)
  )
  assert dark @ bright == pytest.approx(1, abs=1e-3)
  assert dark @ np.ones(1024) == pytest.approx(0, abs=1e-4)


def test_the_best_constant_box_of_three_rows():
  """Two of three rows have a ship at the left: F1 of one box is 2 * 2 / 6.

  A second box at the right would match one of three: F1 2 * 3 / 9, no gain.
  """
  left, near, right = [0, 0, 0.2, 0.2], [0, 0, 0.2, 0.18], [0.8, 0, 1, 0.2]
  of = [
    Row("detection", detection.question("ship"), boxes=np.array([box]),
        labels=("ship",))
    for box in (left, near, right)
  ]  # fmt: skip
  one = '[{"bbox_2d": [0, 0, 200, 200], "label": "ship"}]'
  assert constant.best_boxes(of) == one
  # Both in every row: now the second box pays.
  both = [Row("detection", "", boxes=np.array([left, right]),
              labels=("ship", "plane"))] * 3  # fmt: skip
  assert constant.best_boxes(both).count("bbox_2d") == 2
  assert constant.best_boxes([Row("detection", "")]) == "None"
  # The class counts: a plane would match one of three.
  mixed = [Row("detection", "", boxes=np.array([left]), labels=(label,))
           for label in ("plane", "ship", "ship")]  # fmt: skip
  assert constant.best_boxes(mixed) == one


def test_constants_per_asked_class():
  """The median count of each class; an unknown class has that of all rows."""
  ship, plane = counting.question("ship"), counting.question("plane")
  counts = [(ship, 1), (ship, 2), (ship, 9), (plane, 0), (plane, 0), (plane, 8)]
  fitted = constant.Constant(
    [Row("counting", question, str(n)) for question, n in counts]
  )
  asked = [ship, plane, counting.question("car")]
  assert fitted([Row("counting", q) for q in asked]) == ["2", "0", "1"]


def test_captions_are_answered_field_by_field():
  """No training caption has both of the common fields."""

  def caption(terrain, water):
    fields = dict.fromkeys(captioning.FIELDS, "") | {
      "Terrain": terrain, "Water": water,
    }  # fmt: skip
    return captioning.answer(fields, ("Terrain", "Water"))

  given = [("city", "a"), ("city", "b"), ("x", "river"), ("y", "river")]
  train = [
    Row("captioning", "?", caption(*of), f"{i}") for i, of in enumerate(given)
  ]
  found = texts("captioning", train, [Row("captioning", "?")])
  assert found["question-only"] == [caption("city", "river")]


def test_leave_one_out_leaves_out_the_image(monkeypatch):
  """Each image has two rows with its own answer: 1-NN looks perfect at first.

  Without its image, a row has only neighbours of another answer. Rows are
  answered block by block.
  """
  monkeypatch.setattr(neighbours, "_CHUNK", 3)
  features = np.repeat(np.arange(4.0), 2)[:, None]
  answers = Answers.of([Row("counting", "", str(i // 2)) for i in range(8)])
  images = np.repeat(np.arange(4), 2)
  assert neighbours.fit(features, answers, np.arange(8), (1,)).accuracy == 1
  assert neighbours.fit(features, answers, images, (1,)).accuracy == 0
  # Equal features: all rows vote, whatever k; the largest is the smoothest.
  assert neighbours.fit(0 * features, answers, images, (3, 5, 1)).k == 5


def test_logistic_regression_separates_by_a_word():
  """It needs several answers, and few enough to be classes."""
  features = np.array([[0.0], [1.0]] * 10)
  answers = Answers.of([Row("counting", "", "12"[i % 2]) for i in range(20)])
  model = logistic.fit(features, answers, np.arange(20) // 2)
  assert model.accuracy == 1
  assert model(np.array([[1.0], [0.0]])) == ["2", "1"]
  # Features that name the image are worth nothing without its other row.
  named, images = np.repeat(np.eye(10), 2, axis=0), np.arange(20) // 2
  answers = Answers.of([Row("counting", "", "12"[i % 2]) for i in images])
  assert logistic.fit(named, answers, images).accuracy == 0.5
  many = Answers.of([Row("counting", "", str(i)) for i in range(100)])
  assert logistic.fit(np.zeros((100, 1)), many, np.arange(100)) is None


@pytest.mark.parametrize(
  ("question", "box"),
  [
    (classification.question([1, 2, 11, 22], NAMES), [1, 2, 11, 22]),
    ("[refer] {<10><20><50><40>|<0>} is what?", [100, 200, 500, 400]),
    (detection.question("ship"), None),
    ("How many of the 3 x 3 cells?", None),
  ],
)
def test_the_box_that_a_question_states(question, box):
  found = questions.box(question)
  assert found is None if box is None else found.tolist() == box


def test_words_without_coordinates():
  question = "Is [1, 2, 3, 4] a ship, or 12 ships?"
  assert questions.words(question) == {"is", "a", "ship", "or", "12", "ships"}
  encode = questions.Encoder(["a ship", "a plane", "a plane"])
  assert encode.vocabulary == ["plane", "ship"]
  assert encode(["a ship"])[:, :2].tolist() == [[0, 1]]
  scaled = questions.Standardise(np.array([[1, 10], [3, np.nan], [5, 30]]))
  np.testing.assert_allclose(scaled(np.array([[5, np.nan]])), [[1.5**0.5, 0]])


def test_a_large_training_set_is_sampled():
  found = rows.sample(range(100_000))
  assert len(found) == rows.MAX_ROWS
  assert found == sorted(set(found)) == rows.sample(range(100_000))
