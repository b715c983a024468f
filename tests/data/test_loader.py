"""Padding computed by hand; an order that depends only on the seed."""

import collections
import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.examples import build_example, example_from_ids
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.workers import Recipe, Workers
from fusar_jax.geo.anchors import Anchors


def _take(loader, count):
  return list(itertools.islice(loader, count))


@pytest.fixture
def make(triplets, tokenizer, config):
  made = []

  def make(**options):
    options = {"batch_size": 4, "seed": 1, **options}
    made.append(Loader(triplets, tokenizer, config, LoaderConfig(**options)))
    return made[-1]

  yield make
  for loader in made:
    loader.close()


def test_padding_by_hand(config):
  """Two samples with different lengths, images, grids and anchors."""
  free = dataclasses.replace(config, image_size=None, min_pixels=784)
  rng = np.random.default_rng(0)
  large, small = (
    rng.integers(0, 255, size, np.uint8) for size in ((56, 56, 3), (28, 56, 3))
  )
  one = Anchors(np.ones((1, 64)), np.zeros((1, 2)))
  two = Anchors(np.ones((2, 64)), np.eye(2))
  short = example_from_ids(
    [9, 6, 6, 8, 3],
    [small],
    [two],
    free,
    answer_mask=np.array([0, 0, 0, 1, 1], bool),
  )
  ids = [6, 6, 9, 6, 6, 6, 6, 7]
  mask = np.arange(8) == 7
  long = example_from_ids(
    ids, [small, large], [None, one], free, answer_mask=mask
  )
  batch = pad_batch([short, long], config=free, length=10, anchors=3)
  np.testing.assert_array_equal(
    batch.input_ids, [[9, 6, 6, 8, 3, 0, 0, 0, 0, 0], [*ids, 0, 0]]
  )
  np.testing.assert_array_equal(
    batch.segment_ids, [[1] * 5 + [0] * 5, [1] * 8 + [0] * 2]
  )
  # M = 4: the second image's tokens begin at 4, though the first has but 2.
  np.testing.assert_array_equal(
    batch.visual_index,
    [[-1, 0, 1, *[-1] * 7], [0, 1, -1, 4, 5, 6, 7, -1, -1, -1]],
  )
  assert batch.patches.shape == (2, 2, 16, 588)
  np.testing.assert_array_equal(batch.patch_mask.sum(-1), [[8, 0], [8, 16]])
  np.testing.assert_array_equal(batch.patches[0, 0, :8], short.patches[0])
  np.testing.assert_array_equal(batch.patches[1, 1], long.patches[1])
  # One window each; its holes hold P = 16, not the sample's own 8.
  np.testing.assert_array_equal(
    batch.window_index[0, 0, 0], [*range(8), *[16] * 56]
  )
  assert (batch.window_index[0, 1] == 16).all()
  assert batch.anchor_weights.shape == (2, 2, 4, 3)
  np.testing.assert_array_equal(
    batch.anchor_weights[0, 0, :2, :2], short.anchor_weights[0]
  )
  assert not batch.anchor_weights[0, 0, 2:].any()
  assert not batch.anchor_weights[..., 2].any()
  assert not batch.anchor_weights[1, 0].any()
  np.testing.assert_array_equal(batch.answer_index, [[2, 3], [6, 0]])
  np.testing.assert_array_equal(batch.answer_ids, [[8, 3], [7, 0]])
  np.testing.assert_array_equal(batch.answer_weight, [[0.5, 0.5], [1, 0]])
  per_token = pad_batch([short, long], config=free, loss_weighting="token")
  np.testing.assert_array_equal(per_token.answer_weight, [[1, 1], [1, 0]])
  with pytest.raises(ValueError, match=r"length 8 > 7.*patches 16 > 8"):
    pad_batch([long], config=free, length=7, patches=8)
  with pytest.raises(ValueError, match="loss_weighting 'mean'"):
    pad_batch([long], config=free, loss_weighting="mean")


def test_same_seed_same_bytes_another_seed_another_order(
  make, assert_same_batches
):
  first = _take(make(), 6)
  assert_same_batches(first, _take(make(), 6))
  orders = [ids for _, ids in first]
  assert orders != [ids for _, ids in _take(make(seed=2), 6)]
  # The second epoch is shuffled differently.
  flat = [i for ids in orders for i in ids]
  assert sorted(flat[:11]) == sorted(set(flat))
  assert flat[:11] != flat[11:22]


def test_a_state_resumes_with_the_same_bytes(make, assert_same_batches):
  whole = _take(make(), 7)
  loader = make()
  _take(loader, 3)
  state = json.loads(json.dumps(loader.get_state()))
  fresh = make()
  fresh.set_state(state)
  assert_same_batches(_take(fresh, 4), whole[3:])
  # The interrupted loader itself also continues, and can be reset.
  assert_same_batches(_take(loader, 4), whole[3:])
  loader.set_state(state)
  assert_same_batches(_take(loader, 4), whole[3:])


def test_a_state_of_other_data_is_rejected(make):
  state = make().get_state()
  with pytest.raises(ValueError, match="batch_size: 4 then, 2 now"):
    make(batch_size=2).set_state(state)
  with pytest.raises(ValueError, match="seed: 1 then, 5 now"):
    make(seed=5).set_state(state)


def test_workers_change_nothing(make, assert_same_batches):
  assert_same_batches(_take(make(num_workers=2), 5), _take(make(), 5))


def test_chips_are_augmented_anew_in_each_step(
  triplets, tokenizer, config, assert_same_batches
):
  """Rows with boxes never are; workers and a resumed loader draw the same."""
  chip = dataclasses.replace(
    triplets[0],
    task="classification",
    coordinate_size=(54, 60),
    extra={"boxes": [[0, 0, 60, 54]], "labels": ["ship"]},
  )
  boxed = dataclasses.replace(
    chip, id="boxed", extra={"boxes": [[1, 2, 30, 40]], "labels": ["ship"]}
  )

  def make(**options):
    options = {"batch_size": 2, "shuffle": False, "chip_shift": 0.2} | options
    return Loader([chip, boxed], tokenizer, config, LoaderConfig(**options))

  loader = make()
  steps = _take(loader, 8)
  plain, _ = _take(make(chip_shift=0.0), 1)[0]
  images = {batch.patches[0].tobytes() for batch, _ in steps}
  assert len(images) == 8
  for batch, _ in steps:
    np.testing.assert_array_equal(batch.patches[1], plain.patches[1])
    np.testing.assert_array_equal(batch.input_ids, plain.input_ids)
  assert_same_batches(_take(make(num_workers=1), 8), steps)
  resumed = make()
  first = _take(resumed, 3)
  again = make()
  again.set_state(resumed.get_state())
  assert_same_batches(first + _take(again, 5), steps)
  with pytest.raises(ValueError, match="no row is a chip"):
    Loader([boxed], tokenizer, config, LoaderConfig(1, chip_shift=0.2))


def test_processes_share_each_batch(make):
  """Two processes load the halves of one process's batch, same shapes."""
  whole = _take(make(), 3)
  halves = [_take(make(process_index=i, process_count=2), 3) for i in range(2)]
  for (batch, ids), (low, low_ids), (high, high_ids) in zip(
    whole, *halves, strict=True
  ):
    assert ids == low_ids + high_ids
    both = jax.tree.map(lambda *parts: np.concatenate(parts), low, high)
    jax.tree.map(np.testing.assert_array_equal, both, batch)
  with pytest.raises(ValueError, match="multiple of the 3 processes"):
    make(process_count=3)


def test_one_pass_in_file_order_ends_with_rows_of_padding(
  make, triplets, assert_same_batches
):
  loader = make(shuffle=False, epochs=1)
  batches = list(loader)
  assert loader.steps_per_epoch == len(batches) == 3
  assert [i for _, ids in batches for i in ids] == [t.id for t in triplets]
  last = batches[-1][0]
  assert last.input_ids.shape[0] == 4
  assert not last.segment_ids[3].any()
  assert last.answer_weight[:3].any(1).all()
  assert not last.answer_weight[3].any()
  assert_same_batches(list(loader), batches)


def test_pools_deal_rows_by_length(make, assert_same_batches):
  """Each epoch shows every row once; like lengths share a batch; resumable."""
  options = {"batch_size": 2, "pool_batches": 3, "epochs": 2}
  loader = make(**options)
  steps = list(loader)
  shown = collections.Counter(i for _, ids in steps for i in ids)
  assert set(shown.values()) == {2}

  def padding(batches):
    return sum(int((b.segment_ids == 0).sum()) for b, _ in batches)

  tight = {"buckets": range(8, 512, 8)}
  dealt = padding(make(**options, **tight))
  drawn = padding(make(**{**options, "pool_batches": 1}, **tight))
  assert dealt < drawn
  again = make(**options)
  first = _take(again, 2)
  resumed = make(**options)
  resumed.set_state(again.get_state())
  assert_same_batches(first + list(resumed), steps)


def test_lengths_come_in_buckets(make, triplets, tokenizer, config):
  """Each batch has the smallest bucket; the last is no larger than needed."""
  needs = [len(build_example(t, tokenizer, config).input_ids) for t in triplets]
  small = min(needs)
  loader = make(batch_size=1, buckets=(8, small, 2048), shuffle=False, epochs=1)
  last = -(-max(needs) // 64) * 64
  assert small < last < 2048
  for (batch, _), need in zip(loader, needs, strict=True):
    expected = small if need == small else last
    assert batch.input_ids.shape == (1, expected)
    assert batch.anchor_features.shape[2] == 8


def test_bad_rows_are_told_before_the_first_step(
  triplets, tokenizer, config, tmp_path
):
  np.savez(
    tmp_path / "flat.npz", features=np.zeros((2, 63)), positions=np.zeros(2)
  )
  rows = list(triplets)
  rows[2] = dataclasses.replace(rows[2], images=(tmp_path / "lost.png",))
  rows[4] = dataclasses.replace(rows[4], anchors=(tmp_path / "flat.npz",))
  rows[6] = dataclasses.replace(rows[6], answer="1 " * 3000)
  with pytest.raises(ValueError, match=r"bad rows \(3\)") as caught:
    Loader(rows, tokenizer, config, LoaderConfig(batch_size=2))
  for part in ("row 3 ", "lost.png", "row 5 ", "flat.npz", "row 7 ", "2048"):
    assert part in str(caught.value)
  with pytest.raises(ValueError, match="no triplets"):
    Loader([], tokenizer, config, LoaderConfig(batch_size=2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_goes_bad_later_names_its_row(
  triplets, tokenizer, config, tmp_path, num_workers
):
  """The scan reads headers only; NaN is found when building the example."""
  path = tmp_path / "nan.npz"
  positions = np.zeros((2, 2))
  np.savez(path, features=np.full((2, 64), np.nan), positions=positions)
  row = dataclasses.replace(triplets[0], anchors=(path,))
  loader = Loader(
    [row],
    tokenizer,
    config,
    LoaderConfig(batch_size=1, num_workers=num_workers),
  )
  with pytest.raises(ValueError, match=r'\(id "row0"\).*nan\.npz.*NaN'):
    next(iter(loader))
  loader.close()


def test_workers_never_import_jax(
  triplets, tokenizer, config, tmp_path, monkeypatch
):
  """Importing any of these would end the worker."""
  for name in ("jax", "jaxlib", "flax", "grain", "torch", "tensorflow"):
    (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}!')")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  pool = Workers(1, Recipe(tokenizer, config))
  (example,) = pool.build(triplets[:1])
  pool.close()
  expected = build_example(triplets[0], tokenizer, config)
  np.testing.assert_array_equal(example.input_ids, expected.input_ids)
  # The trap works: a worker that does import one of them dies.
  command = [sys.executable, "-c", "import jax"]
  assert subprocess.run(command, capture_output=True).stderr == b"jax!\n"


def test_workers_end_with_a_parent_that_forgot_them(
  manifest, tokenizer, tmp_path
):
  """A script that stops in the middle of its batches exits silently.

  It has no `if __name__ == "__main__"` either, which spawning would need.
  """
  tokenizer.save(tmp_path)
  script = tmp_path / "script.py"
  script.write_text(
    "import sys\n"
    "from fusar_jax.config import preset\n"
    "from fusar_jax.data.loader import Loader\n"
    "from fusar_jax.data.loader_config import LoaderConfig\n"
    "from fusar_jax.data.tokenizer import load_tokenizer\n"
    "from fusar_jax.data.triplets import read_manifest\n"
    "rows = read_manifest(sys.argv[1])\n"
    "tokenizer = load_tokenizer(sys.argv[2])\n"
    "options = LoaderConfig(batch_size=2, num_workers=2)\n"
    "loader = Loader(rows, tokenizer, preset('tiny'), options)\n"
    "print(next(iter(loader))[0].input_ids.shape[0])\n"
  )
  root = str(Path(__file__).parents[2])
  done = subprocess.run(
    [sys.executable, script, manifest, tmp_path],
    env={**os.environ, "PYTHONPATH": root},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_a_worker_that_dies_is_told(triplets, tokenizer, config):
  pool = Workers(1, Recipe(tokenizer, config))
  pool.build(triplets[:1])
  (process,) = pool._processes
  process.kill()
  process.wait()
  with pytest.raises(RuntimeError, match="died with exit code -9"):
    pool.build(triplets[:1])


def test_grids_of_images_have_buckets(triplets, tokenizer, config, tmp_path):
  """One picture of 2 x 2 cells among those of 4 x 5."""
  Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(tmp_path / "small.png")
  small = dataclasses.replace(
    triplets[1], images=(str(tmp_path / "small.png"),)
  )
  rows = [triplets[1], small, triplets[2]]
  free = dataclasses.replace(config, image_size=None, min_pixels=784)
  options = {"batch_size": 1, "shuffle": False, "epochs": 1}
  plain = Loader(rows, tokenizer, free, LoaderConfig(**options))
  loader = Loader(
    rows, tokenizer, free, LoaderConfig(patch_buckets=(16, 4096), **options)
  )
  for (batch, _), (wide, _), n in zip(loader, plain, (80, 16, 80), strict=True):
    assert batch.patches.shape[2] == 4 * batch.anchor_weights.shape[2] == n
    assert wide.patches.shape[2] == 80
    assert batch.window_index.min() == 0
    assert batch.window_index[batch.window_index < n].max() == n - 1
    np.testing.assert_array_equal(
      batch.patches[batch.patch_mask], wide.patches[wide.patch_mask]
    )
  assert batch.window_index.shape == wide.window_index.shape
