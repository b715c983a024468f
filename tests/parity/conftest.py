"""Random models and samples for parity tests against torch.

The torch side is transformers' Qwen2.5-VL, peft's LoRA, and the TLM of the
official code, reimplemented in torch below.
"""

import dataclasses
import importlib
import os

import jax
import numpy as np
import pytest

from fusar_jax import simulate
from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.data.triplets import read_manifest
from fusar_jax.geo.anchors import Anchors
from fusar_jax.hf import mapping
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.folders import TINY_BASE, resolve
from fusar_jax.hf.load import load_base
from fusar_jax.hf.peft import write_adapter
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.config import (
  DecoderConfig,
  FusarConfig,
  LoRAConfig,
  SpecialTokens,
  TLMConfig,
  VisionConfig,
)
from fusar_jax.model.fusar_gpt import FusarGPT, init_params
from fusar_jax.model.paths import flatten, unflatten


def _reference_package(name: str):
  if os.environ.get("FUSAR_REQUIRE_PARITY") == "1":
    return importlib.import_module(name)
  return pytest.importorskip(name)


@pytest.fixture
def reference_package():
  """Imports a package of the parity extra; skips the test if it is missing."""
  return _reference_package


def _reference_packages():
  for name in ("torch", "transformers", "peft"):
    _reference_package(name)


_TOKENS = SpecialTokens(
  image=120, vision_start=121, vision_end=122, end_of_turn=118, pad=117
)
_PLAIN = {"tlm": None, "tokens": _TOKENS, "image_size": None}

MODELS = {
  # One key/value head for all queries; the decoder's own head.
  "untied, 1 kv head": FusarConfig(
    vision=VisionConfig(
      depth=4,
      hidden_size=48,
      heads=3,
      intermediate_size=64,
      out_width=64,
      full_attention=(1, 3),
    ),
    decoder=DecoderConfig(
      layers=3,
      hidden_size=64,
      heads=4,
      kv_heads=1,
      head_dim=16,
      intermediate_size=112,
      vocab=128,
      mrope_section=(2, 3, 3),
      rope_theta=10000.0,
    ),
    **_PLAIN,
  ),
  # As many key/value heads as queries, uneven sections, wider windows.
  "tied, all kv heads": FusarConfig(
    vision=VisionConfig(
      depth=3,
      hidden_size=32,
      heads=2,
      intermediate_size=40,
      out_width=96,
      full_attention=(2,),
      window=168,
    ),
    decoder=DecoderConfig(
      layers=2,
      hidden_size=96,
      heads=4,
      kv_heads=4,
      head_dim=24,
      intermediate_size=80,
      vocab=136,
      tie_word_embeddings=True,
      mrope_section=(6, 4, 2),
      norm_eps=1e-5,
    ),
    **_PLAIN,
  ),
}


@pytest.fixture(params=sorted(MODELS))
def config(request) -> FusarConfig:
  _reference_packages()
  return MODELS[request.param]


@pytest.fixture
def with_extras():
  """Adds LoRA and TLM to a config."""

  def add(config, lora, tlm=True):
    tlm = TLMConfig(sigma=1.5, hidden_mult=2) if tlm else None
    return dataclasses.replace(config, lora=lora, tlm=tlm)

  return add


@pytest.fixture
def draw():
  """Parameters without zero biases or unit scales, so every leaf matters."""

  def params(config: FusarConfig, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    flat = {}
    for path, leaf in flatten(shapes).items():
      value = rng.standard_normal(leaf.shape)
      kind = path.rpartition("/")[2]
      if kind == "scale":
        value = 1 + 0.2 * value
      elif kind == "bias":
        value = 0.2 * value
      elif kind != "embedding":
        value = value * leaf.shape[-2] ** -0.5
      if kind == "lora_b":
        # With a much larger update softmaxes saturate, and torch's float32
        # strays from its own float64 by more than the tolerance.
        value = 0.3 * value
      flat[path] = value.astype(np.float32)
    return unflatten(flat)

  return params


@dataclasses.dataclass(frozen=True)
class Sample:
  """One sequence with its images and, where the config has a TLM, anchors."""

  input_ids: np.ndarray
  images: list[np.ndarray]
  anchors: list[Anchors] | None


@pytest.fixture
def sample():
  """Makes a sample of images of the given (height, width)."""

  def make(config: FusarConfig, sizes, seed=0) -> Sample:
    rng = np.random.default_rng(seed)
    t, words = config.tokens, 100
    ids, images, anchors = list(rng.integers(0, words, 5)), [], []
    for height, width in sizes:
      count = height * width // config.vision.cell**2
      ids += [t.vision_start, *[t.image] * count, t.vision_end]
      ids += list(rng.integers(0, words, 4))
      images.append(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
      n = int(rng.integers(1, 12))
      features = rng.standard_normal((n, 64)).astype(np.float32)
      features /= np.linalg.norm(features, axis=1, keepdims=True)
      anchors.append(Anchors(features, rng.random((n, 2)).astype(np.float32)))
    return Sample(np.array(ids), images, anchors if config.tlm else None)

  return make


@pytest.fixture
def ours():
  """float32[L, V]: our logits."""

  def logits(config: FusarConfig, params: dict, sample: Sample) -> np.ndarray:
    example = example_from_ids(
      sample.input_ids, sample.images, sample.anchors, config
    )
    batch = pad_batch([example], config=config)
    model = FusarGPT(config)
    run = jax.jit(lambda p, b: model.apply({"params": p}, b))
    return np.asarray(run(params, batch))[0, : len(sample.input_ids)]

  return logits


@pytest.fixture
def theirs():
  """float32[L, V]: the logits of a torch model, images through HF's processor.

  `film` is (module, sigma): the official TLM.
  """
  _reference_packages()
  import torch
  from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pil

  def logits(model, folder, sample: Sample, film=None) -> np.ndarray:
    processor = pil.Qwen2VLImageProcessorPil.from_pretrained(folder)
    inputs = processor(images=sample.images, return_tensors="pt")
    ids = torch.tensor(sample.input_ids)[None]
    visual = next(
      m for n, m in model.named_modules() if n.endswith("model.visual")
    )
    hook = None
    if film is not None:
      hook = visual.register_forward_hook(
        lambda *args: _modulated(
          args[2], inputs["image_grid_thw"], sample.anchors, *film
        )
      )
    try:
      with torch.no_grad():
        out = model.eval()(
          input_ids=ids,
          attention_mask=torch.ones_like(ids),
          pixel_values=inputs["pixel_values"],
          image_grid_thw=inputs["image_grid_thw"],
          mm_token_type_ids=(ids == model.config.image_token_id).int(),
        )
    finally:
      if hook is not None:
        hook.remove()
    return out.logits[0].numpy()

  return logits


def _modulated(output, grids, anchors, film, sigma):
  """The official TLM on the tower's output (fusar_gpt.md, section 2)."""
  import torch
  import torch.nn.functional as F

  tokens, start, done = output.pooler_output, 0, []
  for (_, hp, wp), anchor in zip(grids.tolist(), anchors, strict=True):
    h, w = hp // 2, wp // 2
    x = tokens[start : start + h * w]
    start += h * w
    gamma, beta = film(torch.from_numpy(anchor.features)).chunk(2, dim=-1)
    y, x_at = torch.from_numpy(anchor.positions).unbind(-1)
    rows, cols = torch.arange(hp), torch.arange(wp)
    d2 = (y[:, None, None] * (hp - 1) - rows[None, :, None]) ** 2 + (
      x_at[:, None, None] * (wp - 1) - cols[None, None, :]
    ) ** 2
    weights = torch.exp(-d2 / (2 * sigma**2))
    for _ in range(2):
      weights = weights / (weights.sum(0, keepdim=True) + 1e-6)
    gain, shift = (
      F.interpolate(
        torch.einsum("shw,sc->chw", weights, values)[None],
        size=(h, w),
        mode="bilinear",
        align_corners=False,
      )[0].flatten(1).T
      for values in (gamma, beta)
    )  # fmt: skip
    done.append(x * (1 + gain) + shift)
  output.pooler_output = torch.cat(done)
  return output


@pytest.fixture
def agree():
  """Equal to 1e-4 of the largest magnitude."""

  def check(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()

  return check


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  """Simulated scenes of 168 x 168 pixels, with anchors and questions."""
  folder = tmp_path_factory.mktemp("scenes") / "data"
  code = simulate.main(
    ["--out", str(folder), "--scenes", "3", "--seed", "5", "--workers", "1"]
  )
  assert not code
  return [
    row
    for row in read_manifest(folder / "tasks.jsonl")
    if row.task == "counting"
  ]


@pytest.fixture(scope="module")
def model():
  """tiny-base with a LoRA and a TLM that are no no-ops: (config, params)."""
  config, params = load_base(resolve(TINY_BASE), dtype=np.float32)
  config = dataclasses.replace(
    config, lora=LoRAConfig(rank=4, alpha=8.0), tlm=TLMConfig(hidden_mult=1)
  )
  fresh = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
  rng = np.random.default_rng(1)
  flat = flatten(fresh) | flatten(params)
  for path, leaf in flat.items():
    if path.endswith("lora_b") or path.startswith("tlm/"):
      noise = rng.standard_normal(leaf.shape).astype(np.float32)
      flat[path] = np.asarray(leaf) + 0.02 * noise
  return config, unflatten(flat)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
  """Its export, from the base's SentencePiece model."""
  config, params = model
  out = tmp_path_factory.mktemp("export") / "merged"
  export_merged(out, config, params, tokenizer=resolve(TINY_BASE))
  return out


@pytest.fixture
def base_and_adapter(model, tmp_path):
  """Its base without TLM, and its LoRA and TLM as an adapter of it."""
  config, params = model
  plain = dataclasses.replace(config, tlm=None, lora=LoRAConfig())
  base, adapter = tmp_path / "base", tmp_path / "adapter"
  leaves = mapping.leaf_shapes(config)
  flat = {p: leaf for p, leaf in flatten(params).items() if p in leaves}
  words = resolve(TINY_BASE)
  export_merged(base, plain, unflatten(flat), tokenizer=words)
  write_adapter(adapter, config, params, str(base), tokenizer=words)
  return base, adapter


@pytest.fixture(scope="module")
def unmerged(model):
  """Ours, as it was before the export, with the original tokenizer."""
  config, params = model
  return Assistant(config, params, load_tokenizer(resolve(TINY_BASE)))
