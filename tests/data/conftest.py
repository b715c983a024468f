"""Tiny data set: images, anchors, a tokenizer and a model config."""

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from fusar_jax.config import preset
from fusar_jax.data import vision
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.geo.anchors import (
  Anchors,
  count_anchors,
  read_anchors,
  write_anchors,
)
from fusar_jax.tasks import counting, detection


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
  words = [detection.question("ship"), counting.question("ship"), "user"]
  words += [detection.answer([[i, 2 * i, 40, 50]], ["ship"]) for i in range(20)]
  folder = tmp_path_factory.mktemp("tokenizer")
  return train_sentencepiece(words, folder / "tokenizer.model", 512)


@pytest.fixture(scope="session")
def config():
  """The tiny preset on images of 56 x 84 pixels: 4 x 6 patches, 6 tokens."""
  return dataclasses.replace(preset("tiny"), image_size=(56, 84))


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
  """11 rows of 5 images; odd rows detect, others count; one has anchors."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  (folder / "images").mkdir()
  for i in range(5):
    pixels = rng.integers(0, 255, (100 + i, 150, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
  anchors = Anchors(rng.normal(size=(3, 64)) / 8, rng.random((3, 2)))
  write_anchors(folder / "anchors" / "0.npz", anchors)
  rows = []
  for i in range(11):
    boxes = [[10, 20, 30, 40], [-5, 0, 70, 160]][: 1 + i % 2]
    labels = ["ship"] * len(boxes)
    detect = i % 2
    rows.append(
      {
        "id": f"row{i}",
        "image": f"images/{i % 5}.png",
        "aef": None if i % 5 else "anchors/0.npz",
        "task": "detection" if detect else "counting",
        "coordinate_size": [100 + i % 5, 150],
        "question": (detection if detect else counting).question("ship"),
        "answer": detection.answer(boxes, labels) if detect else str(i),
        "boxes": boxes,
        "labels": labels,
      }
    )
  write_manifest(folder / "manifest.jsonl", rows)
  return folder / "manifest.jsonl"


@pytest.fixture(scope="session")
def triplets(manifest):
  return read_manifest(manifest)


@pytest.fixture(scope="session")
def odd_manifest(manifest, tmp_path_factory):
  """Several images, missing anchors, a table, numbers as ids, no answer."""
  folder = tmp_path_factory.mktemp("odd") / "data"
  shutil.copytree(manifest.parent, folder)
  table = np.random.default_rng(0).normal(size=(4, 70)) / 8
  np.save(folder / "anchors" / "table.npy", table)
  rows = [
    {
      "id": 7,
      "image": ["images/0.png", "images/1.png", "images/0.png"],
      "aef": ["anchors/0.npz", None, "anchors/table.npy"],
      "question": "Is this Tromsø\u2028 or 東京?",
      "answer": [{"bbox_2d": [1, 2, 3, 4], "label": "ship"}],
      "nested": {"a": [1, None, 2.5]},
    },
    {"id": "b", "image": "images/2.png", "question": "?", "answer": "No."},
    # To be predicted only; its number is its id.
    {"image": "images/2.png", "question": "<image>\nAnd now?"},
  ]
  write_manifest(folder / "manifest.json", rows)
  (folder / "dataset.json").write_text('{"license": "none stated"}')
  return folder / "manifest.json"


@pytest.fixture(scope="session")
def assert_same_batches():
  """Asserts equal batches of two loaders: ids, dtypes and values."""

  def compare(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for (batch, ids), (other, other_ids) in zip(ours, theirs, strict=True):
      assert ids == other_ids
      assert jax.tree.structure(batch) == jax.tree.structure(other)
      for a, b in zip(*map(jax.tree.leaves, (batch, other)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

  return compare


@pytest.fixture(scope="session")
def assert_same_rows():
  """Asserts equal rows: text, sizes, bytes of images, values of anchors."""

  def compare(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
      for name in ("id", "question", "answer", "coordinate_size", "task"):
        assert getattr(a, name) == getattr(b, name)
      assert dict(a.extra) == dict(b.extra)
      for image, original in zip(a.images, b.images, strict=True):
        assert image.read_bytes() == original.read_bytes()
        assert vision.image_size(image) == vision.image_size(original)
      for mine, other in zip(a.anchors, b.anchors, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
          assert count_anchors(mine) == count_anchors(other)
          for name in ("features", "positions"):
            np.testing.assert_array_equal(
              *(getattr(read_anchors(x), name) for x in (mine, other))
            )

  return compare


@pytest.fixture(scope="session")
def take_batches(tokenizer, config):
  """take_batches(triplets, count=5, **options) -> [(batch, ids)] of 4 rows."""

  def take(triplets, count=5, **options):
    options = LoaderConfig(batch_size=4, seed=1, **options)
    loader = Loader(triplets, tokenizer, config, options)
    try:
      return list(itertools.islice(loader, count))
    finally:
      loader.close()

  return take
