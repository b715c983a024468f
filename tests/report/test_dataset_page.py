"""The data set page: it shows exactly the model's inputs."""

import base64
import dataclasses
import doctest
import html.parser
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
from fusar_jax.report import anchor_colours as anchor_colours_module
from fusar_jax.report.anchor_colours import anchor_colours
from fusar_jax.report.dataset_page import (
  dataset_page,
  histogram,
  summary,
  write_dataset_page,
)
from fusar_jax.report.sample_card import (
  card,
  colour_samples,
  data_uri,
  escape,
  picture,
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


class Reader(html.parser.HTMLParser):
  """Collects tags and attributes; asserts that tags are balanced."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.words = [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "html", "head", "body"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    if tag not in ("html", "head", "body"):
      assert self.open.pop() == tag

  def handle_data(self, data):
    if "b" in self.open and "style" not in self.open:
      self.words.append(data)

  def named(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_needs_nothing_else(page):
  """No scripts or links; references are data URIs or internal."""
  reader = Reader(page)
  tags = {tag for tag, _ in reader.tags}
  assert not tags & {"script", "link", "iframe", "img", "object", "base"}
  assert "url(" not in page
  assert "@import" not in page
  for _, attrs in reader.tags:
    assert not any(name.startswith("on") for name in attrs)
    for name in ("href", "src", "xlink:href"):
      assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
  policy = reader.named("meta")[1]["content"]
  assert policy.startswith("default-src 'none'")
  ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
  assert len(ids) == len(set(ids)) == 3
  assert {attrs["href"] for attrs in reader.named("use")} == {
    f"#{name}" for name in ids
  }


def test_words_of_the_data_are_escaped(page):
  assert "&lt;script&gt;x" in page
  assert "&lt;script&gt;alert(1)" in page
  assert "&lt;i&gt;task" in page
  assert "As &lt;model&gt; sees it; tokens of &lt;words&gt;." in page
  # The row with half of a surrogate pair is a problem, not a sample.
  assert "1 error, 0 warnings" in page
  assert "half of a surrogate pair" in page
  page.encode()


def test_pictures_are_what_the_model_sees(
  page, samples, inspection, config, tokenizer
):
  """The embedded pixels, cut into patches, equal the example's patches."""
  images = [
    np.asarray(
      Image.open(
        io.BytesIO(base64.b64decode(attrs["href"].partition(",")[2]))
      ).convert("RGB")
    )
    for attrs in Reader(page).named("image")
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


def test_learned_words_are_the_answer(samples, config, tokenizer):
  for sample in samples:
    example = build_example(sample.row.triplet, tokenizer, config)
    pieces = sample.pieces
    ids = [i for piece in pieces for i in piece.ids]
    assert ids == example.input_ids.tolist()
    mask = [piece.learned for piece in pieces for _ in piece.ids]
    assert mask == example.answer_mask.tolist()
    learned = "".join(p.text for p in pieces if p.learned)
    # 30 x 50 pixels, seen at 56 x 84.
    assert learned == "[17, 11, 34, 22] & so on<|im_end|>"
    assert [p.visual for p in pieces if p.visual] == [6] * len(sample.images)
    given = "".join(p.text for p in pieces if not p.learned)
    assert QUESTION in given


def test_marks_on_the_page_follow_the_mask(page, samples):
  words = "".join(Reader(page).words)
  assert words == "".join(
    p.text for sample in samples for p in sample.pieces if p.learned
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
  assert [p.learned for p in pieces for _ in p.ids] == mask
  assert [piece.text for piece in pieces] == ["a", *4 * "\ufffd", "é"]


def test_boxes_and_anchors_stand_where_they_belong(samples):
  (sample,) = [s for s in samples if len(s.images) == 1]
  colours, _ = anchor_colours(sample.anchors[0].features)
  svg = picture(
    sample.images[0],
    sample.row.boxes,
    sample.row.labels,
    sample.anchors[0],
    colours,
    name="x",
  )
  # Of 30 x 50 pixels (height x width), seen at 56 x 84.
  assert '<rect x="16.8" y="11.2" width="16.8" height="11.2"/>' in svg
  dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" fill="#(\w+)"', svg)
  assert [(float(x), float(y)) for x, y, _ in dots] == [
    (0, 0),
    (84, 0),
    (0, 56),
    (21, 28),
  ]
  assert [bytes.fromhex(colour) for _, _, colour in dots] == [
    colour.tobytes() for colour in colours
  ]


def test_boxes_belong_to_the_first_image(samples):
  (sample,) = [s for s in samples if len(s.images) == 2]
  _, colours = colour_samples([sample])[0][0]
  html = card(sample, [None, colours], 0, "split")
  first, second = html.split("</svg>")[:2]
  assert "<title>" in first
  assert "<circle" not in first
  assert "<title>" not in second
  assert "<circle" in second


def test_an_image_without_anchors_has_one_panel(samples):
  image = samples[0].images[0]
  svg = picture(image, np.zeros((0, 4)), (), None, None, name="x")
  assert svg.count("<use") == 1
  assert 'viewBox="0 0 84.0 56"' in svg
  assert "circle" not in svg


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
  """Red increases along a line if its largest loading is positive."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    direction = rng.normal(size=64)
    line = np.outer([0, 1, 2], direction)
    rising = direction[np.abs(direction).argmax()] > 0
    red = anchor_colours(line)[0][:, 0].tolist()
    assert red == ([0, 128, 255] if rising else [255, 128, 0])


def test_the_example_of_colours_is_true():
  found = doctest.testmod(anchor_colours_module)
  assert found.attempted
  assert not found.failed


def test_colours_of_nothing_to_tell():
  assert anchor_colours(np.zeros((0, 64)))[0].shape == (0, 3)
  assert anchor_colours(np.ones((1, 64)))[0].tolist() == [[128] * 3]
  assert (anchor_colours(np.ones((9, 64)))[0] == 128).all()


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
  assert '<b class="learned">[17, 11, 34, 22] &amp; so on</b>' in page
  names = [name for group in summary(inspection) for name, _ in group]
  assert not any("tokens a row" in name[-12:] for name in names[9:])


def test_summary_counts(inspection):
  told = {name: value for g in summary(inspection) for name, value in g}
  assert told["rows"] == ["3"]
  assert told["refused"] == ["1"]
  assert told["images"] == ["2"]
  assert told["height × width, pixels"] == ["30 × 50"]
  assert told["visual tokens a row"] == ["9 (6 to 12)"]
  assert told["boxes"] == ["1"]
  assert told["anchors an image"] == ["4"]
  assert told["images without anchors"] == ["0"]


def bars(svg):
  """Returns the heights of the bars; the last rectangle is the axis."""
  return [float(h) for h in re.findall(r'height="([\d.]+)"/>', svg)][:-1]


def test_histogram_has_every_value():
  """Integers fall into bins of integer width, and none is dropped."""
  values = [1] * 8 + [2] * 4 + [57] * 2
  svg = histogram(values, "a < b")
  assert bars(svg) == [64.0, 10.7]
  # Each bin covers 3 integers; the last one contains a single value.
  assert bars(histogram(range(1, 59), "x")) == [64.0] * 19 + [21.3]
  assert "median 1" in svg
  assert "a &lt; b" in svg
  assert "all 3" in histogram([3, 3], "x")
  assert histogram([], "x") == ""
  assert histogram([0.25, 0.5, 1e6], "x").count("<rect") == 3


def test_escape():
  assert escape("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
  assert escape("\x00\x1b[31m\ud800") == "␀␛[31m?"


def test_written_whole(tmp_path, inspection, samples):
  path = tmp_path / "new/page.html"
  write_dataset_page(path, inspection, samples, model="tiny", tokenizer="x")
  assert path.read_text(encoding="utf-8").endswith("</html>\n")
  assert [p.name for p in path.parent.iterdir()] == ["page.html"]
