"""The data set page: it shows exactly the model's inputs."""

import base64
import colorsys
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fusar_jax.config import preset
from fusar_jax.data.examples import build_example
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.vision import to_patches
from fusar_jax.datasets.scan import choose
from fusar_jax.datasets.validation import inspect
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.report.anchor_colours import anchor_colours
from fusar_jax.report.box_colours import PREDICTED_COLOUR, TRUE_COLOUR
from fusar_jax.report.data_uri import data_uri
from fusar_jax.report.dataset_page import (
  dataset_page,
  summary,
  write_dataset_page,
)
from fusar_jax.report.render import printable
from fusar_jax.report.sample_card import (
  colour_samples,
  panels,
  read_sample,
  split_tokens,
)

# Text of a hostile data set, used in every free-text field.
EVIL = "</b><script src=http://evil.example/x.js></script>\"'&\x00\ud800"
QUESTION = "Where are the ships? Ã — 🛰"


@pytest.fixture(scope="module")
def config():
  return dataclasses.replace(preset("tiny"), image_size=(56, 84))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("words") / "tokenizer.model"
  words = ["Where are the ships?", "system\nYou are a helpful assistant."]
  return train_sentencepiece(words, path, 320)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  """Three rows about two images, with and without anchors; hostile names."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  for name in "ab":
    pixels = rng.integers(0, 255, (30, 50), np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")
  features = rng.normal(size=(4, 64))
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  positions = np.array([[0, 0], [0, 1], [1, 0], [0.5, 0.25]])
  write_anchors(folder / "a.npz", Anchors(features, positions))
  row = {
    "image": "a.png",
    "aef": "a.npz",
    "task": "<i>task",
    "question": QUESTION,
    "answer": "[10, 6, 20, 12] & so on",
    "boxes": [[10, 6, 20, 12]],
    "labels": ["<script>alert(1)</script>"],
  }
  rows = [
    row | {"id": "<script>x"},
    row | {"id": "second", "image": ["a.png", "b.png"], "aef": [None, "a.npz"]},
    row | {"id": EVIL, "question": EVIL},
  ]
  path = folder / "manifest.jsonl"
  path.write_text("\n".join(map(json.dumps, rows)))
  return path


@pytest.fixture(scope="module")
def inspection(manifest, config, tokenizer):
  return inspect([manifest], config, tokenizer)


@pytest.fixture(scope="module")
def samples(inspection, config, tokenizer):
  rows = choose(inspection.splits, 9, 0)
  return [read_sample(row, config, tokenizer) for row in rows]


@pytest.fixture(scope="module")
def page(inspection, samples):
  return dataset_page(inspection, samples, "<model>", "<words>")


def test_the_page_has_one_allowed_script(page, read_page):
  """It enlarges images, whose names it takes from their titles."""
  reader = read_page(page)
  assert len(reader.named("script")) == 1
  assert "script-src 'sha256-" in reader.named("meta")[1]["content"]
  assert page.count('<svg class="drawing') == len(
    re.findall(r"<title>\S.*: \d+ true boxes", page)
  )
  assert len(reader.named("image")) == 3


def test_texts_of_the_data_are_escaped(page):
  assert "&lt;script&gt;x" in page
  assert "&lt;script&gt;alert(1)" in page
  assert "&lt;i&gt;task" in page
  assert "As &lt;model&gt; sees it; tokens of &lt;words&gt;." in page
  # The row with half of a surrogate pair is a problem, not a sample.
  assert "1 error, 0 warnings" in page
  assert "half of a surrogate pair" in page
  page.encode()


def test_pictures_are_what_the_model_sees(
  page, samples, read_page, config, tokenizer
):
  """The embedded pixels, cut into patches, equal the example's patches."""
  images = [
    np.asarray(
      Image.open(
        io.BytesIO(base64.b64decode(attrs["href"].partition(",")[2]))
      ).convert("RGB")
    )
    for attrs in read_page(page).named("image")
  ]
  expected = [
    patches
    for sample in samples
    for patches in build_example(sample.row.triplet, tokenizer, config).patches
  ]
  assert len(images) == len(expected) == 3
  for image, patches in zip(images, expected, strict=True):
    assert image.shape == (56, 84, 3)
    np.testing.assert_array_equal(to_patches(image), patches)


def test_supervised_tokens_are_the_answer(samples, config, tokenizer):
  for sample in samples:
    example = build_example(sample.row.triplet, tokenizer, config)
    pieces = sample.pieces
    ids = [i for piece in pieces for i in piece.ids]
    assert ids == example.input_ids.tolist()
    mask = [piece.supervised for piece in pieces for _ in piece.ids]
    assert mask == example.answer_mask.tolist()
    supervised = "".join(p.text for p in pieces if p.supervised)
    # 30 x 50 pixels, seen at 56 x 84.
    assert supervised == "[17, 11, 34, 22] & so on<|im_end|>"
    assert [p.visual for p in pieces if p.visual] == [6] * len(sample.images)
    given = "".join(p.text for p in pieces if not p.supervised)
    assert QUESTION in given


def test_marks_on_the_page_follow_the_mask(page, samples, read_page):
  assert read_page(page).text("b") == "".join(
    p.text for sample in samples for p in sample.pieces if p.supervised
  )


def test_bytes_of_one_character_stay_together(tokenizer):
  """Byte fallback encodes the satellite as 4 tokens, shown as one piece."""
  ids = tokenizer.encode("a🛰é")
  pieces = split_tokens(tokenizer, ids, [True] * len(ids))
  assert [piece.text for piece in pieces] == ["a", "🛰", "é"]
  assert [len(piece.ids) for piece in pieces] == [1, 4, 2]
  # Pieces never cross a mask boundary, and no token is lost.
  mask = [False, False, True, True, True, True, True]
  pieces = split_tokens(tokenizer, ids, mask)
  assert [p.supervised for p in pieces for _ in p.ids] == mask
  assert [piece.text for piece in pieces] == ["a", *4 * "\ufffd", "é"]


def test_panels(samples):
  """Boxes and anchors in pixels of 56 x 84; boxes belong to the first image."""
  single, double = sorted(samples, key=lambda s: len(s.images))
  colours, _ = anchor_colours(single.anchors[0].features)
  (panel,) = panels(single, [colours], "x")
  ((label, box),) = panel.boxes
  assert label == "<script>alert(1)</script>"
  np.testing.assert_allclose(box, [16.8, 11.2, 33.6, 22.4], rtol=1e-6)
  positions = [(x, y) for x, y, _ in panel.dots]
  assert positions == [(0, 0), (84, 0), (0, 56), (21, 28)]
  assert [bytes.fromhex(colour[1:]) for _, _, colour in panel.dots] == [
    colour.tobytes() for colour in colours
  ]
  first, second = panels(double, colour_samples([double])[0][0], "y")
  assert (len(first.boxes), first.dots) == (1, None)
  assert (len(second.boxes), len(second.dots)) == (0, 4)


def test_panels_on_the_page(page):
  assert '<rect x="16.8" y="11.2" width="16.8" height="11.2"/>' in page
  # Two images with anchors (two panels each) and one without.
  assert page.count('class="drawing picture pair"') == 2
  assert page.count('class="drawing picture"') == 1
  assert page.count("<circle") == 2 * 4


def test_colours_show_kinds_of_ground():
  """Three kinds of ground with a little noise have three colours."""
  rng = np.random.default_rng(0)
  kinds = np.repeat(np.eye(64)[:3], 50, axis=0)
  features = kinds + 0.01 * rng.normal(size=kinds.shape)
  colours, shown = anchor_colours(features)
  assert 0.9 < shown < 1
  centres = colours.reshape(3, 50, 3).astype(int).mean(1)[:, :2]
  for a, b in ((0, 1), (0, 2), (1, 2)):
    assert np.abs(centres[a] - centres[b]).max() > 100
  # Colours do not depend on the order of the anchors.
  order = rng.permutation(150)
  np.testing.assert_array_equal(
    anchor_colours(features[order])[0], colours[order]
  )


def test_signs_of_colours_are_fixed():
  """Hue runs from cyan to pink if the largest loading is positive."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    direction = rng.normal(size=64)
    line = np.outer([0, 1, 2], direction)
    rising = direction[np.abs(direction).argmax()] > 0
    red = anchor_colours(line)[0][:, 0].tolist()
    assert red == ([76, 130, 220] if rising else [220, 130, 76])


def test_colours_without_variance_are_in_the_middle():
  assert anchor_colours(np.zeros((0, 64)))[0].shape == (0, 3)
  assert anchor_colours(np.ones((1, 64)))[0].tolist() == [[130, 76, 220]]
  assert (anchor_colours(np.ones((9, 64)))[0] == [130, 76, 220]).all()


def test_colours_of_anchors_have_other_hues_than_boxes():
  """At least 40 degrees from the green and the orange of boxes."""
  rng = np.random.default_rng(0)
  colours, _ = anchor_colours(rng.normal(size=(500, 64)))
  for box in (TRUE_COLOUR, PREDICTED_COLOUR):
    (of_box, *_) = colorsys.rgb_to_hls(*np.divide(box, 255))
    for colour in colours / 255:
      (hue, _, saturation) = colorsys.rgb_to_hls(*colour)
      away = abs((hue - of_box + 0.5) % 1 - 0.5)
      assert away * 360 > 40
      assert saturation > 0.3


def test_grey_and_colour_survive_without_loss():
  rng = np.random.default_rng(0)
  for channels in (1, 3):
    image = np.broadcast_to(
      rng.integers(0, 256, (8, 9, channels), np.uint8), (8, 9, 3)
    )
    data = base64.b64decode(data_uri(image).partition(",")[2])
    file = Image.open(io.BytesIO(data))
    assert file.mode == ("L" if channels == 1 else "RGB")
    np.testing.assert_array_equal(np.asarray(file.convert("RGB")), image)


def test_without_a_tokenizer_the_words_are_shown(manifest, config):
  inspection = inspect([manifest], config)
  rows = choose(inspection.splits, 9, 0)
  samples = [read_sample(row, config, None) for row in rows]
  page = dataset_page(inspection, samples, "tiny", None)
  assert "lengths in tokens are not counted" in page
  assert '<b class="supervised">[17, 11, 34, 22] &amp; so on</b>' in page
  names = [name for group in summary(inspection) for name, _ in group]
  assert not any("tokens a row" in name[-12:] for name in names[9:])


def test_summary_counts(inspection):
  counts = {name: value for g in summary(inspection) for name, value in g}
  assert counts["rows"] == ["3"]
  assert counts["rejected"] == ["1"]
  assert counts["images"] == ["2"]
  assert counts["height × width, pixels"] == ["30 × 50"]
  assert counts["visual tokens a row"] == ["9 (6 to 12)"]
  assert counts["boxes"] == ["1"]
  assert counts["anchors an image"] == ["4"]
  assert counts["images without anchors"] == ["0"]


def test_printable():
  assert printable("\x00\x1b[31m\ud800\n") == "␀␛[31m?\n"


def test_the_page_is_written_atomically(tmp_path, inspection, samples):
  path = tmp_path / "new/page.html"
  write_dataset_page(path, inspection, samples, model="tiny", tokenizer="x")
  assert path.read_text(encoding="utf-8").endswith("</html>\n")
  assert [p.name for p in path.parent.iterdir()] == ["page.html"]
