"""Embedded images: size limit, one copy per image, anchors."""

import base64
import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.report import picture_store
from fusar_jax.report.choice import BEST, Chosen


@pytest.fixture
def chosen(scored, tmp_path):
  """Four answers about 60 x 90 images; two share an image with anchors."""
  rng = np.random.default_rng(0)
  for name in "abc":
    pixels = rng.integers(0, 255, (60, 90), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{name}.png")
  features = rng.normal(size=(400, 64)).astype(np.float32)
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  positions = rng.random((400, 2)).astype(np.float32)
  write_anchors(tmp_path / "a.npz", Anchors(features, positions))
  answers, _ = scored("counting", [(name, "1", "1") for name in "aabc"])
  return [
    Chosen(
      dataclasses.replace(
        answer,
        image=tmp_path / f"{answer.image_name}.png",
        anchors=tmp_path / "a.npz" if answer.image_name == "a" else None,
      ),
      BEST,
    )
    for answer in answers
  ]


def test_an_image_is_stored_once(chosen):
  kept, pictures = picture_store.fill(chosen)
  assert kept == chosen
  assert [*pictures] == ["a", "b", "c"]
  assert len({picture.name for picture in pictures.values()}) == 3
  assert pictures["a"].shape == (60, 90)


def test_beyond_the_limit_only_known_images_are_shown(chosen):
  """The first image always fits; more answers about it cost nothing."""
  kept, pictures = picture_store.fill([*chosen, chosen[0]], most=1)
  assert [item.answer.image_name for item in kept] == ["a", "a", "a"]
  assert list(pictures) == ["a"]


def test_an_answer_without_an_image_needs_no_room(chosen):
  bare = dataclasses.replace(chosen[3].answer, image=None, image_name="gone")
  kept, pictures = picture_store.fill([*chosen, Chosen(bare, BEST)], most=1)
  assert kept[-1].answer is bare
  assert "gone" not in pictures


def test_anchors_are_thinned_out_and_each_has_its_place(chosen):
  _, pictures = picture_store.fill(chosen)
  assert pictures["a"].anchors == 400
  assert not pictures["b"].dots
  dots = pictures["a"].dots
  assert len(dots) == picture_store.MOST_ANCHORS
  first = np.load(chosen[0].answer.anchors)["positions"][0]
  np.testing.assert_allclose(dots[0][:2], first[::-1])


def test_a_large_image_is_made_smaller(chosen, tmp_path):
  """600 x 1008 noise becomes a JPEG 504 wide, not a PNG of 400 kB."""
  pixels = np.random.default_rng(1).integers(0, 255, (600, 1008), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "large.png")
  answer = dataclasses.replace(
    chosen[3].answer, image=tmp_path / "large.png", image_name="large"
  )
  _, pictures = picture_store.fill([Chosen(answer, BEST)])
  assert pictures["large"].shape == (300, 504)
  kind, _, data = pictures["large"].uri.partition(",")
  assert kind == "data:image/jpeg;base64"
  assert Image.open(io.BytesIO(base64.b64decode(data))).size == (504, 300)
