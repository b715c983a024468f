"""Every kind of data set problem is reported once, with its location."""

import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.examples import build_example
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.datasets import shortcuts
from fusar_jax.datasets.scan import boxes_of, choose
from fusar_jax.datasets.shortcuts import BOX, FILE_NAME, IMAGE_SIZE
from fusar_jax.datasets.validation import inspect
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.tasks import classification, counting, detection


def picture(path, seed, size=(60, 80)):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path)
  return path


def unit_anchors(seed, count=3):
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(count, 64))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  return Anchors(features, rng.random((count, 2)))


def row(identity, image="0.png", boxes=((10, 20, 30, 40),), **fields):
  return {
    "id": identity,
    "image": image,
    "task": "detection",
    "coordinate_size": [60, 80],
    "question": detection.question("ship"),
    "answer": detection.answer(boxes, ["ship"] * len(boxes)),
    "boxes": [list(box) for box in boxes],
    "labels": ["ship"] * len(boxes),
  } | fields


def write(folder, *rows):
  folder.mkdir(exist_ok=True)
  write_manifest(folder / "manifest.jsonl", rows)
  return folder


def only(found, *kinds):
  """The problems, if they are of these kinds and no other."""
  assert [problem.kind for problem in found.problems] == list(kinds)
  return [problem.text for problem in found.problems]


def test_numbers_are_those_of_the_examples(
  manifest, triplets, config, tokenizer
):
  """Lengths, visual tokens and boxes agree with what training builds."""
  (split,) = inspect([manifest], config, tokenizer).splits
  for row, triplet in zip(split.rows, triplets, strict=True):
    example = build_example(triplet, tokenizer, config)
    assert row.length == len(example.input_ids)
    assert row.answer_length == example.answer_mask.sum()
    assert row.visual_tokens == (example.visual_index >= 0).sum()
    assert row.seen == (example.model_size,)
    np.testing.assert_allclose(
      example.to_record_space(row.boxes), boxes_of(triplet)[0], atol=1e-4
    )
  assert len(split.images) == 5
  assert [a and a.size for _, a, _ in split.images.values()] == [
    (3, 64),
    *[None] * 4,
  ]


def test_rows_to_predict_need_no_answer(tmp_path, config, tokenizer):
  """Their length is the prompt's; for training each is an error."""
  picture(tmp_path / "0.png", 0)
  asked, message = row("a", task="counting", question="How many?"), row("b")
  for name in ("answer", "boxes", "labels"):
    asked.pop(name)
  folder = write(tmp_path, asked, message)
  found = inspect([folder], config, tokenizer, with_answers=False)
  only(found)
  (split,) = found.splits
  for line, triplet in zip(
    split.rows, read_manifest(folder / "manifest.jsonl")
  ):
    example = build_example(triplet, tokenizer, config, with_answer=False)
    assert line.length == len(example.input_ids)
  assert split.rows[0].answer_length == 0 < split.rows[1].answer_length
  longest = max(line.length for line in split.rows)
  for limit, kinds in ((longest, ()), (longest - 1, ("too long",))):
    found = inspect(
      [folder], config, tokenizer, with_answers=False, max_length=limit
    )
    only(found, *kinds)
  (text,) = only(inspect([folder], config, tokenizer), "bad row")
  assert "row 1" in text
  assert "no 'answer'" in text


def test_a_true_answer_that_is_cut_off_is_an_error(tmp_path, config):
  picture(tmp_path / "0.png", 0)
  cut = row("a", answer='[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}, {"bb')
  del cut["boxes"], cut["labels"]
  (text,) = only(inspect([write(tmp_path, cut)], config), "bad row")
  assert "truncated" in text


def test_boxes(tmp_path, config):
  """Over the edge is a warning; without area or outside, an error."""
  picture(tmp_path / "0.png", 0)
  boxes = [
    (0, 0, 80, 60),
    (-5, 0, 70, 60),
    (9, 9, 9, 20),
    (30, 9, 20, 20),
    (80, 0, 90, 9),
  ]
  # Another task of the same image repeats its boxes.
  count = row("b", boxes=boxes, task="counting", answer="5")
  count["question"] = counting.question("ship")
  write(tmp_path, row("a", boxes=boxes), count)
  found = inspect([tmp_path], config)
  texts = only(
    found,
    *["box without area"] * 2,
    "box outside of the image",
    "box over the edge",
  )
  assert "[30.0, 9.0, 20.0, 20.0], on 60 x 80" in texts[1]
  assert f'{tmp_path / "manifest.jsonl"} row 1 (id "a"): box 2' in texts[3]
  assert (found.errors, found.warnings) == (3, 1)
  assert len(found.splits[0].boxes) == 5


def test_official_rows_tell_their_boxes_in_the_answer(tmp_path, config):
  picture(tmp_path / "0.png", 0)
  rows = [row("a", boxes=[(1, 2, 3, 90)]), row("b", answer="two ships")]
  for each in rows:
    del each["boxes"], each["labels"], each["task"]
  rows[1]["question"] += " "
  rows[0]["boxes"] = None
  write(tmp_path, *rows)
  found = inspect([tmp_path], config)
  bad, _ = only(found, "bad row", "box over the edge")
  assert 'row 2 (id "b"): the answer holds no boxes' in bad
  assert found.splits[0].rows[0].task == "detection"
  assert found.splits[0].rejected == 1


def test_files_are_listed_once_with_their_first_row(tmp_path, config):
  damaged = picture(tmp_path / "1.png", 0)
  damaged.write_bytes(damaged.read_bytes()[:-900])
  (tmp_path / "2.png").write_text("no picture")
  picture(tmp_path / "3.png", 0)
  (tmp_path / "3.npz").write_bytes(b"PK")
  write(
    tmp_path,
    row("a"),
    row("b", question="Other?"),
    row("c", "1.png"),
    row("d", "2.png"),
    row("e", "3.png", aef="3.npz"),
    row("f", "3.png", aef="4.npz"),
  )
  found = inspect([tmp_path], config)
  texts = only(found, *["unreadable images"] * 3, *["unreadable anchors"] * 2)
  assert '(id "a") and 1 more: image not found' in texts[0]
  assert "damaged image" in texts[1]
  assert "anchors file not found" in texts[4]
  assert found.splits[0].rejected == 6
  assert not found.splits[0].rows


def test_bad_rows_keep_their_numbers(tmp_path, config, tokenizer):
  picture(tmp_path / "0.png", 0)
  lines = [
    json.dumps(row("a")),
    "{",
    '{"id": "b"}',
    json.dumps(row("d", question="half a pair: \ud800")),
  ]
  (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
  texts = only(inspect([tmp_path], config, tokenizer), *["bad row"] * 3)
  message = {text.split("row ")[1][0]: text for text in texts}
  assert sorted(message) == ["2", "3", "4"]
  assert "surrogate" in message["4"]


def test_no_json_at_all_is_reported(tmp_path, config):
  (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe")
  found = inspect([tmp_path], config)
  assert "not UTF-8" in only(found, "unreadable manifest")[0]
  assert choose(found.splits, 3, 0) == []


def test_too_long(tmp_path, config, tokenizer):
  picture(tmp_path / "0.png", 0)
  write(
    tmp_path, row("a"), row("b", question="Ships?", answer="None", boxes=[])
  )
  lengths = [
    row.length for row in inspect([tmp_path], config, tokenizer).splits[0].rows
  ]
  assert lengths[0] > lengths[1]
  found = inspect([tmp_path], config, tokenizer, max_length=lengths[0] - 1)
  assert f"{lengths[0]} tokens (6 of them" in only(found, "too long")[0]
  only(inspect([tmp_path], config, tokenizer, max_length=lengths[0]))


def test_duplicates(tmp_path, config):
  """The same bytes under two names; asked the same; answered otherwise."""
  for name in ("0.png", "1.png"):
    picture(tmp_path / name, 0)
  picture(tmp_path / "2.png", 2)
  write(
    tmp_path,
    row("a"),
    row("b", "1.png"),
    row("c", "2.png"),
    row("d", "2.png", boxes=[(1, 2, 3, 4)]),
    row("e", question="Something else?"),
  )
  texts = only(
    inspect([tmp_path], config),
    "same image twice",
    "same question twice",
    "two answers to one question",
  )
  assert "0.png = " in texts[0]
  assert 'rows 1 ("a"), 2 ("b")' in texts[1]
  assert 'rows 3 ("c"), 4 ("d")' in texts[2]


def test_the_same_question_after_other_turns(tmp_path, config):
  picture(tmp_path / "0.png", 0)
  first, second = (
    row(name, question="Why?", answer=name, task="vqa", boxes=())
    | {"history": [{"question": "Any ships?", "answer": name}]}
    for name in ("yes", "no")
  )
  write(tmp_path, first, second)
  only(inspect([tmp_path], config))


def test_splits_must_not_share_images(tmp_path, config):
  """Bytes count, not names; the same ground under other images is a warning."""
  picture(tmp_path / "train/0.png", 0)
  picture(tmp_path / "train/1.png", 1)
  picture(tmp_path / "test/7.png", 0)
  picture(tmp_path / "test/1.png", 3)
  for split in ("train", "test"):
    write_anchors(tmp_path / split / "1.npz", unit_anchors(1))
  train = write(tmp_path / "train", row("a"), row("b", "1.png", aef="1.npz"))
  test = write(
    tmp_path / "test", row("a", "7.png"), row("b", "1.png", aef="1.npz")
  )
  found = inspect([train, test], config)
  leak, ground = only(found, "image in two splits", "same ground in two splits")
  assert leak.startswith(f"train {tmp_path}/train/0.png = test {tmp_path}")
  assert leak.endswith("test/7.png")
  assert ground.startswith("1 anchors files of train lie under other images")
  assert found.shared_images == (1, 1)
  assert (found.errors, found.warnings) == (1, 1)


def test_odd_contents_are_warnings(tmp_path, config):
  Image.new("L", (80, 60), 7).save(tmp_path / "0.png")
  short = Anchors(0.5 * unit_anchors(0).features, np.zeros((3, 2)))
  write_anchors(tmp_path / "0.npz", short)
  write(tmp_path, row("a", aef="0.npz"))
  found = inspect([tmp_path], config)
  blank, quantised = only(found, "odd images", "odd anchors")
  assert "every pixel is 7" in blank
  assert "length 0.5 to 0.5" in quantised
  assert found.errors == 0


def test_unknown_terms_are_a_warning(tmp_path, config):
  picture(tmp_path / "0.png", 0)
  write(tmp_path, row("a"))
  card = {"source": "SSDD", "license": None}
  (tmp_path / "dataset.json").write_text(json.dumps(card))
  (text,) = only(inspect([tmp_path], config), "unknown terms")
  assert "license of the data not recorded" in text


def test_a_missing_manifest_is_an_error(tmp_path, config):
  with pytest.raises(FileNotFoundError, match=r"manifest\.jsonl not found"):
    inspect([tmp_path], config)


def classified(name, label, box=(0, 0, 40, 40)):
  return row(
    name,
    f"{name}.png",
    [box],
    task="classification",
    labels=[label],
    question=classification.question(box, ["A", "B"]),
    answer=label,
  )


def chips(folder, first, *, name, size, box):
  """40 chips of two classes; the functions get the class, 0 or 1."""
  rows = []
  for seed in range(first, first + 40):
    kind = seed % 2
    stem = name(seed, kind)
    picture(folder / f"{stem}.png", seed, size(kind))
    rows.append(classified(stem, "AB"[kind], box(kind)))
  return write(folder, *rows)


@pytest.mark.parametrize("shortcut", shortcuts.FEATURES[:3])
def test_a_shortcut_is_measured_and_nothing_else(tmp_path, config, shortcut):
  """Random pictures: the class follows from one feature, 50 % from others."""
  options = {
    "name": lambda seed, kind: f"{'ab'[kind] * (shortcut == FILE_NAME)}{seed}",
    "size": lambda kind: (60, 80 + 9 * kind * (shortcut == IMAGE_SIZE)),
    "box": lambda kind: (0, 0, 40, 30 + 9 * kind * (shortcut == BOX)),
  }
  paths = [
    chips(tmp_path / part, first, **options)
    for part, first in (("train", 0), ("test", 100))
  ]
  for given, name in ((paths, "test"), (paths[:1], "train")):
    found = inspect(given, config)
    assert {s.split for s in found.shortcuts} == {name}
    of = {s.feature: s for s in found.shortcuts}
    assert (of[shortcut].accuracy, of[shortcut].groups) == (1, 40)
    assert 0.3 <= of[shortcuts.THUMBNAIL].accuracy <= 0.7
    assert of[shortcut].majority <= 0.5
    assert [s.feature for s in found.shortcuts if s.gives_away] == [shortcut]
    assert [p.text for p in found.problems if p.kind == "shortcut"] == [
      str(of[shortcut])
    ]
    assert f"from the {shortcut} alone: 100.0% right" in str(of[shortcut])


@pytest.mark.parametrize(
  ("feature", "accuracy", "margin", "gives_away"),
  [
    (BOX, 0.6, 0.06, True),
    (BOX, 0.6, 0.07, False),  # Three standard errors are 0.107.
    (BOX, 0.54, 0.01, False),
    (shortcuts.THUMBNAIL, 0.6, 0.06, False),
  ],
)
def test_a_large_and_significant_gain_gives_away(
  feature, accuracy, margin, gives_away
):
  measured = ("test", "classification", feature, accuracy, 0.5, margin, 90, 30)
  assert shortcuts.Shortcut(*measured).gives_away == gives_away


def test_folds_keep_near_duplicates_together(tmp_path, config):
  """25 pictures in 4 versions: the nearest thumbnail must be another one.

  Versions prove no more than their picture: the margin does not shrink.
  """
  rows = []
  for seed in range(25):
    label = "AB"[int(np.random.default_rng(seed).integers(2))]
    picture(tmp_path / "0.png", seed)
    pixels = np.asarray(Image.open(tmp_path / "0.png"))
    for version in range(4):
      name = f"{seed}-{version}"
      changed = (pixels * (1 - 0.1 * version)).astype(np.uint8)
      Image.fromarray(changed).save(tmp_path / f"{name}.png")
      rows.append(classified(name, label))
  found = inspect([write(tmp_path, *rows)], config)
  of = {s.feature: s for s in found.shortcuts}
  assert (of[shortcuts.THUMBNAIL].rows, of[shortcuts.THUMBNAIL].groups) == (
    100,
    25,
  )
  assert of[shortcuts.THUMBNAIL].accuracy < 0.8
  found = inspect([write(tmp_path, *rows[::4])], config)
  single = {s.feature: s for s in found.shortcuts}[shortcuts.THUMBNAIL]
  assert (single.rows, single.groups) == (25, 25)
  assert of[shortcuts.THUMBNAIL].margin == pytest.approx(single.margin, rel=0.1)


def test_near_duplicates_in_two_splits_are_named(tmp_path, config):
  for part in ("train", "test"):
    for seed in range(3):
      picture(tmp_path / part / f"{seed}.png", seed + 10 * (part == "test"))
  pixels = np.asarray(Image.open(tmp_path / "train" / "2.png"))
  for part, scale in (("train", 0.8), ("test", 0.5)):
    changed = (pixels * scale).astype(np.uint8)
    Image.fromarray(changed).save(tmp_path / part / "near.png")
  paths = [
    write(tmp_path / part, row("a"), row("b", "2.png"), row("c", "near.png"))
    for part in ("train", "test")
  ]
  found = inspect(paths, config)
  (text,) = only(found, "near duplicates in two splits")
  assert text.startswith("1 of 3 images of test show the same as one of train;")
  assert f"{tmp_path}/train/2.png ~ {tmp_path}/test/near.png (corr" in text
  assert found.near_duplicates == ((2, 2), (0, 1))
