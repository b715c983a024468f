"""Each control condition removes only what it documents."""

import dataclasses
import itertools

import numpy as np
import pytest

from fusar_jax.data.anchor_conditions import (
  CONDITIONS,
  AnchorCondition,
  encode_places,
  exchange,
  thin,
)
from fusar_jax.data.example_sizes import measure_examples
from fusar_jax.data.examples import build_example
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.data.workers import Recipe
from fusar_jax.geo.anchors import Anchors, read_anchors, write_anchors

# Around (lon, lat) = (8, 54), clockwise from the top left, closed.
RING = [[8.0, 54.1], [8.2, 54.1], [8.2, 54.0], [8.0, 54.0], [8.0, 54.1]]


@pytest.fixture(scope="module")
def anchored(manifest, tmp_path_factory):
  """6 rows of 3 images, 9 x 9 grid points each; the last has a footprint."""
  folder = tmp_path_factory.mktemp("anchored")
  y, x = (np.indices((9, 9)).reshape(2, -1) + 0.5) / 9
  rng = np.random.default_rng(0)
  rows = []
  for i, row in enumerate(read_manifest(manifest)[:6]):
    path = folder / f"{i % 3}.npz"
    if i < 3:
      features = rng.normal(size=(81, 64)) / 8
      write_anchors(path, Anchors(features, np.stack([y, x], -1)))
    rows.append(
      {
        "id": row.id,
        "image": str(row.images[0]),
        "aef": path.name,
        "question": row.question,
        "answer": row.answer,
        "metadata": {"footprint": RING if i % 3 == 2 else None},
      }
    )
  write_manifest(folder / "manifest.jsonl", rows)
  return read_manifest(folder / "manifest.jsonl")


def shown(triplets, name, grid=0):
  condition = AnchorCondition(name, grid)
  return [condition.read(row)[0] for row in condition.arrange(triplets)]


def stored(triplets):
  return [read_anchors(row.anchors[0]) for row in triplets]


def test_zeros_keep_their_places(anchored):
  for ours, theirs in zip(shown(anchored, "zeros"), stored(anchored)):
    assert not ours.features.any()
    np.testing.assert_array_equal(ours.positions, theirs.positions)


def test_shuffled_images_hand_on_all_they_have(anchored):
  """None keeps its own, rows of one image agree, and nothing is lost."""
  own = stored(anchored)
  given = [a.features.tobytes() for a in shown(anchored, "shuffled")]
  assert all(a != b.features.tobytes() for a, b in zip(given, own))
  assert given[:3] == given[3:]
  assert set(given) == {a.features.tobytes() for a in own}


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_an_exchange_is_a_derangement_that_can_be_repeated(count):
  """Of distinct files, however often each is named."""
  files = [f"{i}.npz" for i in range(count)]
  donors = exchange(files + files[::-1])
  assert sorted(donors) == sorted(donors.values()) == sorted(files)
  assert all(taker != giver for taker, giver in donors.items())
  assert donors == exchange(files)


def test_one_file_cannot_be_shuffled(anchored):
  with pytest.raises(
    ValueError, match="two anchors files to exchange, found 1"
  ):
    AnchorCondition("shuffled").arrange(anchored[:1])


def test_wrong_place_is_half_an_image_away(anchored):
  """A node at (1/18, 13/18) goes to (10/18, 4/18); twice is back home."""
  condition = AnchorCondition("wrong_place")
  ours, theirs = condition.read(anchored[0])[0], stored(anchored)[0]
  np.testing.assert_allclose(theirs.positions[6], [1 / 18, 13 / 18], atol=1e-6)
  np.testing.assert_allclose(ours.positions[6], [10 / 18, 4 / 18], atol=1e-6)
  np.testing.assert_array_equal(ours.features, theirs.features)
  back = (ours.positions + 0.5) % 1
  np.testing.assert_allclose(back, theirs.positions, atol=1e-6)


def test_coordinates_say_where_and_nothing_else(anchored):
  codes = shown(anchored, "coordinates")
  for code in codes:
    np.testing.assert_allclose(np.linalg.norm(code.features, axis=1), 1, 1e-6)
  # Same places, no footprint: the same vectors, whatever the ground is.
  np.testing.assert_array_equal(codes[0].features, codes[1].features)
  assert not codes[0].features[:, 32:].any()
  assert (codes[2].features[:, 32:] != 0).all()
  assert len(np.unique(codes[0].features, axis=0)) == 81


def test_an_encoding_by_hand():
  """The middle of an image around (lon, lat) = (90, 0).

  y = 1/2: sine of pi/2 is 1, of pi, 2 pi, .. 0; cosine 0, -1, 1, 1, ..
  latitude 0: sines 0, cosines 1. longitude 90: sine of pi/2 is 1, of 2 pi, 8
  pi, .. 0; cosine 0, 1, 1, ..
  """
  ring = np.array([[89, 1], [91, 1], [91, -1], [89, -1.0]])
  code = encode_places(np.array([[0.5, 0.5]]), ring)[0] * np.sqrt(32)
  middle = [1, *[0] * 7, 0, -1, *[1] * 6]
  expected = middle + middle + [0] * 8 + [1] * 8 + [1, *[0] * 7, 0, *[1] * 7]
  np.testing.assert_allclose(code, expected, atol=1e-5)


def test_an_image_across_the_180th_meridian_is_interpolated_within():
  ring = np.array([[179.9, 1], [-179.9, 1], [-179.9, 0.8], [179.9, 0.8]])
  same = np.array([[179.9, 1], [180.1, 1], [180.1, 0.8], [179.9, 0.8]])
  middle = np.array([[0.5, 0.5]])
  np.testing.assert_allclose(
    encode_places(middle, ring), encode_places(middle, same), atol=1e-6
  )


def test_a_footprint_that_is_none_is_told(anchored, tokenizer, config):
  row = dataclasses.replace(
    anchored[0], extra={"metadata": {"footprint": [[1, 2], "x"]}}
  )
  with pytest.raises(ValueError, match=r"row 1 .*'footprint' must be a list"):
    build_example(
      row, tokenizer, config, anchors=AnchorCondition("coordinates")
    )


@pytest.mark.parametrize(
  ("grid", "rows"), [(1, [4]), (3, [1, 4, 7]), (9, range(9))]
)
def test_thinning_keeps_the_nodes_in_the_middle_of_cells(anchored, grid, rows):
  """In the order of the file; a grid as stored changes nothing."""
  anchors = stored(anchored)[0]
  kept = [9 * row + column for row, column in itertools.product(rows, rows)]
  ours = thin(anchors, grid)
  np.testing.assert_array_equal(ours.features, anchors.features[kept])
  np.testing.assert_array_equal(ours.positions, anchors.positions[kept])


def test_a_grid_denser_than_the_data_is_rejected(anchored, tokenizer, config):
  """Raised by the scan of all rows before the first step, and on reading."""
  dense = AnchorCondition("aligned", 18)
  _, rejected = measure_examples(
    anchored, Recipe(tokenizer, config, anchors=dense)
  )
  assert len(rejected) == 6
  assert "18 x 18 = 324 nodes, but the anchors file holds 81" in rejected[0]
  with pytest.raises(ValueError, match=r"row 1 .* holds 81"):
    build_example(anchored[0], tokenizer, config, anchors=dense)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_batch_is_as_large_as_its_condition_needs(
  anchored, tokenizer, config, name
):
  """9 nodes of 81, padded to 16; none: 8 of padding, without a weight."""
  loader = Loader(
    anchored,
    tokenizer,
    config,
    LoaderConfig(
      batch_size=6, shuffle=False, epochs=1, anchors=AnchorCondition(name, 3)
    ),
  )
  [(batch, ids)] = list(loader)
  assert ids == [row.id for row in anchored]
  count = 0 if name == "none" else 9
  assert batch.anchor_weights.shape[-1] == (16 if count else 8)
  assert (batch.anchor_weights[..., :count] > 0).all()
  assert not batch.anchor_weights[..., count:].any()
  expected = shown(anchored, name, 3)
  for row, anchors in zip(batch.anchor_features[:, 0], expected):
    np.testing.assert_array_equal(
      row[:count], np.zeros((0, 64)) if anchors is None else anchors.features
    )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("alinged",), "'alinged': expected one of aligned, none"),
    (("zeros", -1), "anchor_grid -1"),
  ],
)
def test_user_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    AnchorCondition(*arguments)
