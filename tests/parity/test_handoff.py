"""Visual tokens of this package, with TLM, in transformers' decoder.

Random models with image grids of different sizes. test_exports.py runs the code
of docs/export.md, on a model with a tokenizer.
"""

import os

import numpy as np
import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import torch
import transformers
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fusar_jax.hf.export import export_merged
from fusar_jax.hf.handoff import inputs_of_ids
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.config import LoRAConfig

SIZES = [(56, 56), (196, 140), (84, 84)]


def test_logits_and_greedy_tokens(
  tmp_path, config, with_extras, draw, sample, agree
):
  config = with_extras(config, LoRAConfig(4, 6.0))
  ours = Assistant(config, draw(config, 5))
  one = sample(config, SIZES, seed=3)
  assert len({len(a.features) for a in one.anchors}) == len(SIZES)
  export_merged(tmp_path / "out", config, ours.params)
  model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
    tmp_path / "out", dtype=torch.float32
  )
  arrays = inputs_of_ids(one.input_ids, one.images, config)
  inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}

  def handed(anchors):
    tokens = ours.visual_tokens(one.images, anchors)
    outputs = BaseModelOutputWithPooling(
      pooler_output=tuple(map(torch.from_numpy, tokens))
    )
    return {"image": outputs}

  logits = ours.logits(one.input_ids, one.images, one.anchors)
  with torch.no_grad():
    out = model(**inputs, mm_encoder_outputs=handed(one.anchors))
    plain = model(**inputs, mm_encoder_outputs=handed(None))
    new = model.generate(
      **inputs, mm_encoder_outputs=handed(one.anchors), max_new_tokens=16
    )
  agree(out.logits[0].numpy(), logits)
  assert np.abs(plain.logits[0].numpy() - logits).max() > 0.1
  assert new[0, len(one.input_ids) :].tolist() == ours.generate(
    one.input_ids, one.images, one.anchors, max_new_tokens=16
  )
