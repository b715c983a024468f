"""Random models against transformers, grid by grid.

Ragged windows on either edge, grids narrower than a window, several images.
`test_hf_roundtrip.py` adds LoRA and the official TLM.
"""

import os

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import torch
import transformers

from fusar_jax.hf.export import export_merged

SIZES = [
  [(56, 56)],
  [(28, 504)],
  [(504, 56)],
  [(140, 196)],
  [(504, 1008)],
  [(308, 252)],
  [(56, 56), (196, 140), (84, 84)],
]


def test_logits(tmp_path, config, draw, sample, ours, theirs, agree):
  """Every grid, through one pair of models: 1e-4 of the largest logit."""
  params = draw(config, 7)
  export_merged(tmp_path, config, params)
  model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
    tmp_path, dtype=torch.float32
  )
  for seed, images in enumerate(SIZES):
    one = sample(config, images, seed)
    agree(ours(config, params, one), theirs(model, tmp_path, one))
