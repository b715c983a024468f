"""Stage-1 folders with vision LoRA: training as in peft, and inference."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.hf import mapping, peft
from fusar_jax.hf.export import export_merged
from fusar_jax.model.config import VISION_PROJECTIONS, LoRAConfig
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import provenance
from fusar_jax.training.continuation import continued
from fusar_jax.training.optimizer import linear_schedule, make_optimizer
from fusar_jax.training.parameters import initial_params
from fusar_jax.training.partition import partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_train_step

torch = pytest.importorskip("torch")
reference_peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
Model = transformers.Qwen2_5_VLForConditionalGeneration

SIZES = [(56, 112)]
STEPS, RATE = 4, 2e-3
ANSWER = 4  # supervised tokens, the last of a sample


@pytest.fixture
def folders(tmp_path, config, with_extras, draw):
  """base/ and adapter/, a stage-1 folder: TLM, and LoRA in the tower, too."""
  lora = LoRAConfig(3, 7.0, 0.1, vision=VISION_PROJECTIONS)
  stage1 = with_extras(config, lora)
  params = draw(stage1, 5)
  flat = flatten(params)
  base = {p: flat[p] for p in mapping.leaf_shapes(config)}
  export_merged(tmp_path / "base", config, unflatten(base))
  peft.write_adapter(tmp_path / "adapter", stage1, params)
  return tmp_path


def _reference(folders, **options):
  base = Model.from_pretrained(folders / "base", dtype=torch.float32)
  return reference_peft.PeftModel.from_pretrained(
    base, folders / "adapter", **options
  )


def test_training_continues_vision_lora_as_peft(config, folders, sample, agree):
  """Losses and LoRA of tower and decoder after some steps, without a TLM."""
  lora = LoRAConfig(3, 7.0)
  run = dataclasses.replace(config, lora=lora)
  names = (str(folders / name) for name in ("base", "adapter"))
  sources = [provenance.describe(name, folders) for name in names]
  values = ConfigDict({"data": {"anchors": "none"}})
  values.trainable = [(r".*/lora_[ab]", True), (r".*", False)]
  run = continued(run, *sources, values, folders)
  params = initial_params(run, *sources, folders, seed=0)
  trainable, frozen = partition(params, values.trainable)
  # Copies: the optimizer must not change what is compared below.
  before = {p: np.array(leaf) for p, leaf in flatten(trainable).items()}
  optimizer = make_optimizer(linear_schedule(RATE, STEPS, 0))
  state = create_state(trainable, optimizer, seed=0)
  step = jax.jit(make_train_step(run, optimizer, StepOptions(dropout=False)))
  samples = [sample(config, SIZES, seed) for seed in range(STEPS)]
  losses = []
  for one in samples:
    mask = np.arange(len(one.input_ids)) >= len(one.input_ids) - ANSWER
    example = example_from_ids(
      one.input_ids, one.images, None, run, answer_mask=mask
    )
    batch = pad_batch([example], config=run)
    state, metrics = step(state, frozen, batch)
    losses.append(float(metrics["loss"]))

  model = _reference(folders, is_trainable=True).eval()  # eval: no dropout
  theirs = _train(model, folders / "base", samples)
  np.testing.assert_allclose(losses, theirs, rtol=1e-4)
  named = {
    name.replace(".default.weight", ".weight"): value.detach().numpy()
    for name, value in model.named_parameters()
    if value.requires_grad
  }
  after = flatten(state.trainable)
  towers = 0
  for row in mapping.adapter_tensors(run):
    moved = after[row.path][row.layer] - before[row.path][row.layer]
    assert np.abs(moved).max() > 1e-5, row.path
    agree(
      mapping.to_published(np.asarray(after[row.path][row.layer]), row),
      named.pop(mapping.peft_name(row.name)),
    )
    towers += row.path.startswith("visual/")
  assert towers == 2 * len(VISION_PROJECTIONS) * run.vision.depth
  assert not named


def _train(model, folder, samples) -> list[float]:
  """The same steps by torch: AdamW, clipping at 1, linear decay."""
  from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pil

  processor = pil.Qwen2VLImageProcessorPil.from_pretrained(folder)
  trained = [p for p in model.parameters() if p.requires_grad]
  optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
  losses = []
  for k, one in enumerate(samples):
    optimizer.param_groups[0]["lr"] = RATE * (STEPS - k) / STEPS
    inputs = processor(images=one.images, return_tensors="pt")
    ids = torch.tensor(one.input_ids)[None]
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    out = model(
      input_ids=ids,
      attention_mask=torch.ones_like(ids),
      pixel_values=inputs["pixel_values"],
      image_grid_thw=inputs["image_grid_thw"],
      mm_token_type_ids=(ids == model.config.image_token_id).int(),
      labels=labels,
    )
    out.loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(out.loss.item())
  return losses
