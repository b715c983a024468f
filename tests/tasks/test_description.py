"""Full captions: what they state is counted again in the maps."""

import re

import numpy as np
import pytest

from fusar_jax.tasks import captioning, grounding
from fusar_jax.tasks.description import places, sentences, short
from fusar_jax.tasks.description.ground import (
  BUILT,
  COVERS,
  CROPS,
  FLOODED,
  GRASS,
  ROAD,
  TREES,
  UNMAPPED,
  WATER,
  Ground,
)


def random_ground(rng, side=60) -> Ground:
  """Blobs of few covers, with some buildings and roads."""
  from scipy import ndimage

  fields = rng.normal(size=(5, side, side))
  blobs = ndimage.gaussian_filter(fields, (0, side / 9, side / 9))
  blobs += rng.normal(0, 0.03, 5)[:, None, None]
  covers = np.array([WATER, TREES, CROPS, GRASS, BUILT], np.uint8)
  cover = covers[blobs.argmax(0)]
  cover[rng.random(cover.shape) < 0.01] = FLOODED
  if rng.random() < 0.3:
    cover[: int(rng.integers(1, side // 3))] = UNMAPPED
  surface = np.zeros((side, side), np.uint8)
  surface[:, int(rng.integers(side))] = ROAD
  height = np.where(cover == BUILT, 9.5, 0).astype(np.float32)
  return Ground(10.0, cover, surface, height, "coast", buildings=3)


def cell_of(side):
  """int[side, side], cell of each pixel's centre."""
  third = (3 * (np.arange(side) + 0.5) / side).astype(int)
  return 3 * third[:, None] + third


def check_place(text: str, mask: np.ndarray):
  """Asserts that the pixels of a mask are where the text claims."""
  h, w = mask.shape  # Square.
  in_cell = [(mask & (cell_of(h) == c)).sum() for c in range(9)]
  if text == "throughout the scene":
    assert min(in_cell) > 0
    return
  if found := re.fullmatch(r"in (\d of|all) nine parts", text):
    assert np.count_nonzero(in_cell) == int(found[1].replace("all", "9")[0])
    return
  least = 0.8 if text.startswith("mostly ") else 0.99
  text = text.removeprefix("mostly ")
  y, x = np.mgrid[:h, :w] + 0.5
  of = {"left": x <= w / 2, "right": x >= w / 2}
  of |= {"top": y <= h / 2, "bottom": y >= h / 2}
  there = np.ones_like(mask)
  if found := re.fullmatch(r"in the (\w+)(?: (\w+))? (?:half|quarter)", text):
    for side in filter(None, found.groups()):
      there = there & of[side]
  else:
    cells = re.fullmatch(r"at the ([\w-]+)(?: and the ([\w-]+))?", text)
    assert cells, text
    named = [grounding.CELLS.index(c) for c in cells.groups() if c]
    there = np.isin(cell_of(h), named)
    least = min(least, 0.5 if least < 0.9 else least)
  assert (mask & there).sum() >= least * mask.sum()


def test_places_are_true():
  rng = np.random.default_rng(1)
  seen = set()
  for _ in range(300):
    h, w = rng.integers(12, 40, 2)
    y, x = np.mgrid[:h, :w]
    cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(1, 16)
    mask = np.hypot(y - cy, x - cx) < r
    mask |= rng.random((h, w)) < rng.choice([0, 0.02])
    if h != w:
      mask = mask[: min(h, w), : min(h, w)]
    if mask.any():
      text = places.where(mask)
      check_place(text, mask)
      seen.add(re.sub(r"[\w-]*(left|right|top|bottom|center)[\w-]*", "", text))
  assert len(seen) >= 5


def test_shares_and_places_are_counted():
  rng = np.random.default_rng(2)
  names = dict(zip(sentences._COVER.values(), range(len(COVERS))))
  any_of = "|".join(names)
  pattern = re.compile(
    rf"(?:({any_of}) (\d+) %, (.*)|(\d+) % ({any_of}), (.*)"
    rf"|({any_of}) (.*) \((\d+) %\))"
  )
  checked = 0
  for k in range(40):
    ground = random_ground(rng)
    fields = sentences.describe(ground, None, np.random.default_rng(k))
    assert captioning.parse(captioning.answer(fields)).fields == fields
    mapped = np.count_nonzero(ground.cover != UNMAPPED)
    for part in fields["Distribution"].split("; "):
      if part.endswith("not mapped"):
        assert mapped < ground.cover.size
        continue
      if "over 99 %" in part:
        continue
      a = pattern.fullmatch(part)
      assert a, part
      name = a[1] or a[5] or a[7]
      share, place = int(a[2] or a[4] or a[9]), a[3] or a[6] or a[8]
      mask = ground.cover == names[name]
      assert round(100 * mask.sum() / mapped) == share
      check_place(place, mask)
      checked += 1
  assert checked > 80


def test_a_seed_selects_the_wording():
  ground = random_ground(np.random.default_rng(3))

  def text(seed):
    return sentences.describe(ground, (), np.random.default_rng(seed))

  assert text(0) == text(0)
  assert len({captioning.answer(text(seed)) for seed in range(8)}) == 8
  # The facts stay: numbers in any order.
  numbers = {
    tuple(sorted(re.findall(r"\d+", text(seed)["Distribution"])))
    for seed in range(8)
  }
  assert len(numbers) == 1


@pytest.mark.parametrize("style", ["short", "full"])
def test_what_is_not_mapped_is_unknown(style):
  cover = np.full((30, 30), CROPS, np.uint8)
  cover[:6] = BUILT
  nothing = np.zeros_like(cover)
  ground = Ground(10.0, cover, nothing, None, mapped=frozenset())
  if style == "short":
    fields = short.describe(ground, None)
  else:
    fields = sentences.describe(ground, None, np.random.default_rng(0))
  assert "unknown" in fields["Terrain"]
  assert "unknown" in fields["Buildings"]
  assert "unknown" in fields["Roads"]
  for text in fields.values():
    assert "no targets" not in text
    assert "empty" not in text
  if style == "full":
    assert "20 % of the land, at the top" not in fields["Buildings"]
    assert re.search(
      r"built-up area .*20 %|built-up area on 20 %", fields["Buildings"]
    )
