"""Random models against transformers, peft and the official TLM, grid by grid.

Ragged windows on either edge, grids narrower than a window, several images.
"""

import os

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import peft as reference_peft
import torch
import transformers

from fusar_jax.hf import mapping, peft, tlm_file
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.torch_file import read_torch
from fusar_jax.model.config import VISION_PROJECTIONS, LoRAConfig
from fusar_jax.model.paths import flatten, unflatten

SIZES = [
  [(56, 56)],
  [(28, 504)],
  [(504, 56)],
  [(140, 196)],
  [(504, 1008)],
  [(308, 252)],
  [(56, 56), (196, 140), (84, 84)],
]


def _film(folder):
  state = read_torch(folder / tlm_file.WEIGHTS)["film_mlp"]
  state = {name: torch.from_numpy(value) for name, value in state.items()}

  def film(x):
    x = x @ state["0.weight"].T + state["0.bias"]
    x = torch.nn.functional.silu(x)
    return x @ state["2.weight"].T + state["2.bias"]

  return film


@pytest.mark.parametrize("lora", [None, "language", "language and vision"])
def test_logits(
  tmp_path, config, with_extras, draw, sample, ours, theirs, agree, lora
):
  """Every grid, through one pair of models: 1e-4 of the largest logit."""
  plain = config
  if lora is not None:
    vision = VISION_PROJECTIONS if "vision" in lora else ()
    config = with_extras(config, LoRAConfig(4, 8.0, vision=vision))
  params = draw(config, 7)
  base = unflatten(
    {
      path: leaf
      for path, leaf in flatten(params).items()
      if path in mapping.leaf_shapes(plain)
    }
  )
  export_merged(tmp_path / "base", plain, base)
  model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
    tmp_path / "base", dtype=torch.float32
  )
  film = None
  if lora is not None:
    peft.write_adapter(tmp_path / "adapter", config, params)
    model = reference_peft.PeftModel.from_pretrained(
      model, tmp_path / "adapter"
    )
    film = (_film(tmp_path / "adapter"), config.tlm.sigma)
  sizes = SIZES if lora is None else SIZES[-2:]
  for seed, images in enumerate(sizes):
    one = sample(config, images, seed)
    agree(
      ours(config, params, one), theirs(model, tmp_path / "base", one, film)
    )
