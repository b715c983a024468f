"""Plans of 7B and 72B on their target slices, against values by hand.

The expected values do not use the package's arithmetic: parameter counts follow
from the published shapes of Qwen2.5-VL. A compilation takes half a minute or
more; only v6e-16, the tightest target, is part of the default tests.
"""

import functools

import pytest

from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.compile_hlo import DoesNotFitError
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.planning.prediction import COMPUTE, HBM, LINKS
from fusar_jax.training.device_mesh import AUTO
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

# Parameters of 7B: a decoder layer (q and o, k and v, three of the MLP), a
# block of the tower (q, k, v and the projection; three), its merger, TLM, head.
LAYERS, BLOCKS = 28, 32
LAYER = 2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944
BLOCK = 4 * 1280**2 + 3 * 1280 * 3420
MERGER = 5120**2 + 5120 * 3584
TLM = 64 * 14336 + 14336 * 7168
HEAD = 152064 * 3584
DOWN = 3584 * 18944
# LoRA of rank 8 on the seven projections of a layer.
ADAPTERS = 8 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))

TOKENS, PATCHES, MERGED, ANSWERS, ANCHORS = 512, 1296, 324, 32, 100


@functools.cache
def _plan(topology, samples, model="qwen2_5_vl_7b", accumulation=4):
  config = get_config("stage2", f"model={model}")
  config.accumulation = accumulation
  planner = Planner(
    resolve(config), find_slice(topology), Shape(TOKENS, ANSWERS, ANCHORS)
  )
  # Weights are sharded over all chips, even if they fit one chip.
  choice, _ = planner.choice((1, -1, 1), samples)
  return planner.step(choice)


def _useful():
  """FLOPs of a sample: a product with n parameters is 2 n per row."""
  tower = 2 * PATCHES * BLOCKS * BLOCK + 2 * MERGED * MERGER
  # Attention: 4 blocks over the image, 28 within windows of 8 x 8 patches.
  tower += 4 * 4 * PATCHES**2 * 1280 + 28 * 4 * PATCHES * 57 * 1280
  decoder = 2 * TOKENS * LAYERS * (LAYER + ADAPTERS)
  # Causal: a token attends to half of the tokens on average.
  decoder += LAYERS * 4 * TOKENS**2 / 2 * 3584
  rest = 2 * ANCHORS * TLM + 2 * ANSWERS * 2 * HEAD
  # The decoder's base is frozen: one backward product per forward product.
  # Nothing before the decoder is trainable.
  return tower + 2 * decoder + rest


@pytest.mark.parametrize(
  ("topology", "samples", "accumulation", "mfu"),
  [
    pytest.param("v5e-8", 4, 4, 0.5, marks=pytest.mark.slow),
    pytest.param("v5e-16", 4, 4, 0.5, marks=pytest.mark.slow),
    pytest.param("v5p-16", 8, 4, 0.6, marks=pytest.mark.slow),
    # HBM-bound: each micro-batch reads all weights.
    ("v6e-16", 8, 1, 0.55),
  ],
)
def test_7b_fits_and_is_fast_enough(
  libtpu, topology, samples, accumulation, mfu
):
  plan = _plan(topology, samples, accumulation=accumulation)
  chip = plan.prediction.where.chip
  assert plan.memory.peak <= chip.memory
  assert plan.prediction.mfu >= mfu
  # Serial: max(compute, HBM), then all collectives.
  seconds = plan.prediction.seconds
  serial = max(seconds[COMPUTE], seconds[HBM]) + seconds[LINKS]
  assert plan.prediction.serial_mfu == pytest.approx(
    samples * _useful() / serial / chip.peak, rel=0.01
  )
  assert plan.prediction.useful == pytest.approx(samples * _useful(), rel=0.01)
  # Remat recomputes layers except the products of down_proj.
  again = 2 * TOKENS * LAYERS * (LAYER - DOWN)
  assert plan.prediction.seconds[COMPUTE] * chip.peak == pytest.approx(
    samples * (_useful() + again), rel=0.03
  )
  assert plan.prediction.useful_share == pytest.approx(
    _useful() / (_useful() + again), rel=0.03
  )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("nf4", 4.25)])
def test_7b_decodes_on_one_chip_of_16_gib_if_quantised(libtpu, name, bits):
  """16 rows of 512 tokens and 256 new ones; in bfloat16 not even one row."""
  config = resolve(get_config("stage2", "model=qwen2_5_vl_7b"))
  planner = Planner(
    config, find_slice("v5e-1"), Shape(TOKENS, ANSWERS, ANCHORS)
  )
  with pytest.raises(DoesNotFitError):
    planner.decoding(planner.decoding_choice(AUTO, 1), 256)
  choice = planner.decoding_choice(AUTO, 16, name)
  plan = planner.decoding(choice, 256, name)
  kernels = LAYERS * LAYER + BLOCKS * BLOCK
  others = MERGER + TLM + 2 * HEAD + LAYERS * ADAPTERS
  least = kernels * bits / 8 + 2 * others
  # LoRA is padded to tiles, nf4's last block of 3420 inputs to 64.
  assert least <= plan.memory.arguments <= 1.06 * least
  assert plan.memory.peak < 0.75 * plan.prediction.where.chip.memory


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "samples"), [("v5e-8", 4), ("v5e-16", 4)])
def test_collectives_and_arguments_by_hand(libtpu, topology, samples):
  """bf16 kernels are gathered once per pass: those of the decoder forward and
  backward, of tower, merger and TLM forward. Arguments are a chip's shard of
  the weights and of adapters with both moments; the 8 columns of one of the two
  LoRA matrices are padded to a tile of 128."""
  plan = _plan(topology, samples, accumulation=4)
  chips = plan.prediction.where.chips
  assert plan.choice.mesh == (1, chips, 1)
  used = 2 * LAYERS * LAYER + BLOCKS * BLOCK + MERGER + TLM + HEAD
  received = sum(
    e.bytes for e in plan.prediction.collectives if e.kind == "all-gather"
  )
  assert received == pytest.approx(2 * used * (chips - 1) / chips, rel=0.1)
  # Received bytes are written and read at least once.
  where = plan.prediction.where.chip
  assert plan.prediction.seconds[HBM] * where.bandwidth >= 2 * received

  frozen = LAYERS * LAYER + BLOCKS * BLOCK + MERGER + TLM + 2 * HEAD
  adapters = LAYERS * ADAPTERS * 3 * 4
  least = (2 * frozen + adapters) / chips
  most = (2 * frozen + adapters * 16) / chips
  assert least <= plan.memory.arguments <= 1.05 * most


@pytest.mark.slow
def test_72b_on_v5p_64_as_by_hand(libtpu):
  """145 GB of weights on 2 x 4 x 4 chips. The slice has no full cube, so no
  axis wraps around: three links per chip, and the step is link-bound."""
  width, keys, between, layers, chips = 8192, 1024, 29568, 80, 32
  layer = 2 * width**2 + 2 * width * keys + 3 * width * between
  adapters = 8 * (2 * 2 * width + 2 * (width + keys) + 3 * (width + between))
  block = 4 * 1280**2 + 3 * 1280 * 3456
  merger, head = 5120**2 + 5120 * width, 152064 * width
  tlm = 64 * 4 * width + 4 * width * 2 * width
  plan = _plan("v5p-64", 1, "qwen2_5_vl_72b")
  found, chip = plan.prediction, plan.prediction.where.chip
  assert plan.memory.arguments >= 2 * 72e9 / chips
  assert plan.memory.peak <= chip.memory

  # bf16 kernels, the decoder's forward and backward, from 31 other chips.
  gathered = 2 * (2 * layers * layer + 32 * block + merger + tlm + head)
  links = gathered * (chips - 1) / chips / (3 * 90e9)
  assert found.bound == LINKS
  assert found.samples_per_second == pytest.approx(chips / links, rel=0.02)
  assert round(found.samples_per_second) == 31

  decoder = 2 * TOKENS * layers * (layer + adapters)
  decoder += layers * 4 * TOKENS**2 / 2 * width
  tower = 2 * PATCHES * 32 * block + 2 * MERGED * merger
  tower += 4 * 4 * PATCHES**2 * 1280 + 28 * 4 * PATCHES * 57 * 1280
  useful = tower + 2 * decoder + 2 * ANCHORS * tlm + 2 * ANSWERS * 2 * head
  again = 2 * TOKENS * layers * (layer - width * between)
  assert found.useful == pytest.approx(useful, rel=0.01)
  assert found.useful_share == pytest.approx(
    useful / (useful + again), rel=0.02
  )
  mfu = useful / links / 459e12
  serial = useful / (links + (useful + again) / 459e12) / 459e12
  assert found.mfu == pytest.approx(mfu, rel=0.02)
  assert found.serial_mfu == pytest.approx(serial, rel=0.02)
  assert (round(mfu, 2), round(serial, 2)) == (0.31, 0.22)
