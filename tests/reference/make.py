"""Computes the reference values beside this file: `make reference`.

Everything comes from torch, transformers and peft: a random Qwen2.5-VL in the
published layout, a random LoRA adapter, and TLM as the official training code
computes it, written out below. Nothing here imports fusar_jax, so that no error
of ours can reach the values. All weights are drawn from the seeds below, in
float32 on the CPU.

    python tests/reference/make.py [FOLDER]     default: tests/reference/values
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as pil

SEED_BASE, SEED_ADAPTER, SEED_DATA, SEED_TLM, SEED_MROPE = range(1, 6)

IMAGE, VISION_START, VISION_END, VIDEO, END, WORDS = (
  120,
  121,
  122,
  123,
  118,
  100,
)
VOCABULARY = 128
SIGMA, HIDDEN_MULT, SIDE, BANDS = 1.5, 3, 168, 64
STEPS, WARMUP, BATCH, RATE = 6, 2, 4, 2e-3
# Of gradients and of trained parameters so many rows are kept.
ROWS = 6

# Windows of 4 x 4 merged cells, so that every image here has ragged ones.
CONFIG = {
  "vision_config": {
    "depth": 3,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 24,
    "out_hidden_size": 48,
    "fullatt_block_indexes": [1],
    "window_size": 112,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
  },
  "text_config": {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": VOCABULARY,
    "rope_parameters": {
      "rope_type": "default",
      "rope_theta": 10000.0,
      "mrope_section": [1, 2, 3],
    },
    "bos_token_id": None,
    "eos_token_id": END,
    "tie_word_embeddings": False,
    "max_position_embeddings": 1024,
  },
  "image_token_id": IMAGE,
  "video_token_id": VIDEO,
  "vision_start_token_id": VISION_START,
  "vision_end_token_id": VISION_END,
  "tie_word_embeddings": False,
}
PROJECTIONS = (
  *("q_proj", "k_proj", "v_proj", "o_proj"),
  *("gate_proj", "up_proj", "down_proj", "qkv", "attn.proj"),
)


# Inputs.


def picture(rng, height: int, width: int) -> np.ndarray:
  """uint8[height, width, 3] of squares of 7 pixels, which compresses well."""
  cells = rng.integers(0, 256, (height // 7, width // 7, 3), dtype=np.uint8)
  return cells.repeat(7, 0).repeat(7, 1)


def prompt(rng, sizes) -> list[int]:
  """Token ids: words, and images of the given (height, width) among them."""
  ids = rng.integers(0, WORDS, 4).tolist()
  for height, width in sizes:
    cells = height * width // 28**2
    ids += [VISION_START, *[IMAGE] * cells, VISION_END]
    ids += rng.integers(0, WORDS, 3).tolist()
  return ids


def anchors(rng, count: int) -> tuple[np.ndarray, np.ndarray]:
  """float32[count, 64] unit vectors and float32[count, 2] positions."""
  features = rng.standard_normal((count, BANDS)).astype(np.float32)
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  return features, rng.random((count, 2)).astype(np.float32)


# Models.


def make_base(folder: Path, seed: int) -> None:
  """Writes a random model, bfloat16, as transformers saves it."""
  torch.manual_seed(seed)
  config = transformers.Qwen2_5_VLConfig(**CONFIG)
  model = transformers.Qwen2_5_VLForConditionalGeneration(config)
  with torch.no_grad():
    for name, value in model.named_parameters():
      fresh = torch.randn_like(value)
      if name.endswith("bias"):
        fresh *= 0.2
      elif "norm" in name or "ln_q" in name:
        fresh = 1 + 0.2 * fresh
      elif "embed_tokens" not in name:
        fresh *= value[0].numel() ** -0.5
      value.copy_(fresh)
  model.to(torch.bfloat16).save_pretrained(folder)
  pil.Qwen2VLImageProcessorPil().save_pretrained(folder)


def load_base(folder: Path, tied: bool = False):
  """The model of a folder in float32; tied: its head is the embedding."""
  model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
    folder, dtype=torch.float32
  )
  if tied:
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
  return model.eval()


def make_adapter(folder: Path, base: Path, seed: int) -> None:
  """Writes LoRA on every projection and a TLM, in the official format."""
  torch.manual_seed(seed)
  model = peft.get_peft_model(
    load_base(base),
    peft.LoraConfig(
      r=2,
      lora_alpha=6,
      lora_dropout=0.05,
      target_modules=list(PROJECTIONS),
      init_lora_weights=False,
      task_type="CAUSAL_LM",
    ),
  )
  with torch.no_grad():
    for name, value in model.named_parameters():
      if "lora_" in name:
        fresh = torch.randn_like(value) * value.shape[1] ** -0.5
        value.copy_(fresh * (0.3 if "lora_B" in name else 1))
  model.save_pretrained(folder)
  settings = folder / "adapter_config.json"
  fields = json.loads(settings.read_text())
  # A list made from a set: its order would change from run to run.
  fields["target_modules"] = sorted(fields["target_modules"])
  fields["base_model_name_or_path"] = "Qwen/Qwen2.5-VL-7B-Instruct"
  settings.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
  (folder / "README.md").unlink(missing_ok=True)
  width = CONFIG["text_config"]["hidden_size"]
  state = film(width, max(128, HIDDEN_MULT * width)).state_dict()
  torch.save({"film_mlp": state}, folder / "vec64_film.pt")
  tlm = {
    "format": "tlm_original_train_patch_resize_v1",
    "sigma": SIGMA,
    "hidden_mult": HIDDEN_MULT,
    "image_size": SIDE,
    "vec_dim": BANDS,
  }
  (folder / "tlm_config.json").write_text(json.dumps(tlm, indent=2) + "\n")


def film(width: int, hidden: int) -> torch.nn.Sequential:
  return torch.nn.Sequential(
    torch.nn.Linear(BANDS, hidden),
    torch.nn.SiLU(),
    torch.nn.Linear(hidden, 2 * width),
  )


class Adapted:
  """Base, adapter and TLM together, for one image at a time."""

  def __init__(self, base: Path, adapter: Path):
    self.model = peft.PeftModel.from_pretrained(
      load_base(base), adapter, is_trainable=True
    ).eval()  # No dropout, in training either.
    state = torch.load(adapter / "vec64_film.pt", weights_only=True)["film_mlp"]
    hidden, width = state["0.weight"].shape[0], len(state["2.bias"]) // 2
    self.film = film(width, hidden)
    self.film.load_state_dict(state)
    self.anchors = None
    _visual(self.model).register_forward_hook(self._modulate)

  def trained(self, stage: int) -> dict[str, torch.nn.Parameter]:
    """LoRA in both stages, the TLM's projector in the first."""
    found = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
    if stage == 1:
      own = self.film.named_parameters()
      found |= {f"film_mlp.{name}": p for name, p in own}
    return found

  def _modulate(self, module, inputs, output):
    tokens = output.pooler_output
    side = 2 * round(len(tokens) ** 0.5)
    features, positions = map(torch.from_numpy, self.anchors)
    output.pooler_output = modulated(
      tokens, self.film(features), positions, (side, side), SIGMA
    )
    return output


def modulated(tokens, projected, positions, patch_grid, sigma):
  """TLM of the official training code, steps 2 to 5.

  Args:
    tokens: [h * w, C], merged visual tokens.
    projected: [S, 2 C], the projector's output for each anchor.
    positions: [S, 2], (y, x) in [0, 1].
    patch_grid: (2 h, 2 w).
    sigma: in patches.
  """
  hp, wp = patch_grid
  rows = positions[:, 0, None] * (hp - 1) - torch.arange(hp)
  columns = positions[:, 1, None] * (wp - 1) - torch.arange(wp)
  squared = rows[:, :, None] ** 2 + columns[:, None, :] ** 2
  weights = torch.exp(-squared / (2 * sigma**2))
  for _ in range(2):
    weights = weights / (weights.sum(0, keepdim=True) + 1e-6)
  gamma, beta = projected.chunk(2, dim=-1)

  def spread(values):
    field = torch.einsum("shw,sc->chw", weights, values)[None]
    field = F.interpolate(
      field, size=(hp // 2, wp // 2), mode="bilinear", align_corners=False
    )
    return field[0].flatten(1).T

  return tokens * (1 + spread(gamma)) + spread(beta)


def _visual(model):
  named = model.named_modules()
  return next(m for n, m in named if n.endswith("model.visual"))


def inputs_of(base: Path, ids, pictures) -> dict:
  processor = pil.Qwen2VLImageProcessorPil.from_pretrained(base)
  images = processor(images=list(pictures), return_tensors="pt")
  ids = torch.tensor(ids)[None]
  return {
    "input_ids": ids,
    "attention_mask": torch.ones_like(ids),
    "pixel_values": images["pixel_values"],
    "image_grid_thw": images["image_grid_thw"],
    "mm_token_type_ids": (ids == IMAGE).int(),
  }


def labels_of(ids, answer: int) -> torch.Tensor:
  labels = torch.tensor(ids)[None].clone()
  labels[:, : len(ids) - answer] = -100
  return labels


# Values.


def tlm_values() -> dict:
  """Outputs and gradients on square grids, few anchors and many."""
  torch.manual_seed(SEED_TLM)
  rng = np.random.default_rng(SEED_TLM)
  width = 8
  projector = film(width, 128)
  values = {
    f"param.{name}": value.numpy()
    for name, value in projector.state_dict().items()
  }
  corner = np.array([[0.0, 1.0]], np.float32)
  nodes = (np.arange(3, dtype=np.float32) + 0.5) / 3
  regular = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(9, 2)
  cases = {
    "corner": (8, 2.0, corner),
    "regular": (12, 2.0, regular),
    "narrow": (12, 0.5, rng.random((7, 2)).astype(np.float32)),
    "wide": (12, 6.0, rng.random((7, 2)).astype(np.float32)),
    "many": (16, 1.0, rng.random((30, 2)).astype(np.float32)),
  }
  for name, (side, sigma, positions) in cases.items():
    features, _ = anchors(rng, len(positions))
    shape = ((side // 2) ** 2, width)
    # Values that float16 holds exactly: half the bytes.
    drawn = rng.standard_normal((2, *shape)).astype(np.float16)
    tokens, cotangent = drawn.astype(np.float32)
    projector.zero_grad()
    leaf = torch.from_numpy(tokens).requires_grad_()
    out = modulated(
      leaf,
      projector(torch.from_numpy(features)),
      torch.from_numpy(positions),
      (side, side),
      sigma,
    )
    out.backward(torch.from_numpy(cotangent))
    found = {
      "features": features,
      "positions": positions,
      "side": np.int32(side),
      "sigma": np.float32(sigma),
      "tokens": drawn[0],
      "cotangent": drawn[1],
      "out": out.detach().numpy(),
      "grad.tokens": leaf.grad.numpy(),
    }
    for path, parameter in projector.named_parameters():
      found[f"grad.{path}"] = parameter.grad[:ROWS].numpy()
    values |= {f"{name}/{key}": value for key, value in found.items()}
  return values


def mrope_values(base: Path) -> dict:
  """Positions of several layouts: (height, width) of each image, in merged
  cells, and a number of words before, between and after."""
  model, rng = load_base(base).model, np.random.default_rng(SEED_MROPE)
  layouts = {
    "one_word_before": [1, (2, 3), 1],
    "wide": [4, (2, 7), 5],
    "tall": [3, (6, 2), 2],
    "square": [2, (4, 4), 9],
    "two": [5, (3, 5), 2, (4, 2), 3],
    "three_touching": [1, (2, 2), 0, (1, 6), 0, (5, 3), 4],
    "image_last": [6, (3, 4)],
  }
  values = {}
  for name, parts in layouts.items():
    ids, grids = [], []
    for part in parts:
      if isinstance(part, tuple):
        ids += [VISION_START, *[IMAGE] * (part[0] * part[1]), VISION_END]
        grids.append((1, 2 * part[0], 2 * part[1]))
      else:
        ids += rng.integers(0, WORDS, part).tolist()
    ids = torch.tensor(ids)[None]
    positions, _ = model.get_rope_index(
      ids,
      (ids == IMAGE).int(),
      image_grid_thw=torch.tensor(grids),
      attention_mask=torch.ones_like(ids),
    )
    values[f"{name}/input_ids"] = ids[0].numpy().astype(np.uint8)
    values[f"{name}/grids"] = np.array(grids, np.uint8)[:, 1:]
    values[f"{name}/positions"] = positions[:, 0].numpy().astype(np.uint8)
  return values


def base_values(base: Path) -> dict:
  """Logits and visual tokens of images that are not square; a tied head too."""
  rng, values = np.random.default_rng(SEED_DATA), {}
  for name, sizes in {
    "one": [(140, 196)],
    "two": [(196, 84), (56, 140)],
  }.items():
    pictures = [picture(rng, *size) for size in sizes]
    ids = prompt(rng, sizes)
    model = load_base(base)
    inputs = inputs_of(base, ids, pictures)
    with torch.no_grad():
      grid = inputs["image_grid_thw"]
      visual = model.model.visual(inputs["pixel_values"], grid_thw=grid)
      logits = model(**inputs).logits[0]
    values[f"{name}/input_ids"] = np.array(ids, np.uint8)
    for i, image in enumerate(pictures):
      values[f"{name}/picture_{i}"] = image
    values[f"{name}/visual_tokens"] = visual.pooler_output.numpy()
    values[f"{name}/logits"] = logits.numpy()
    if name == "two":
      continue
    tied = load_base(base, tied=True)
    out = tied(**inputs, labels=labels_of(ids, 3))
    out.loss.backward()
    embedding = tied.model.language_model.embed_tokens.weight
    values[f"{name}/tied_logits"] = out.logits[0].detach().numpy()
    values[f"{name}/tied_loss"] = np.float32(out.loss.item())
    values[f"{name}/tied_grad"] = embedding.grad.numpy()
  return values


def examples(count: int = 8) -> list[dict]:
  """Prompts, answers and anchors of various lengths, one image each."""
  rng = np.random.default_rng(SEED_DATA + 100)
  pictures = [picture(rng, SIDE, SIDE) for _ in range(2)]
  found = []
  for i in range(count):
    answer = 2 + 3 * i % 8
    ids = prompt(rng, [(SIDE, SIDE)])
    ids += [*rng.integers(0, WORDS, answer - 1).tolist(), END]
    features, positions = anchors(rng, 1 + 5 * i % 9)
    found.append(
      {
        "input_ids": ids,
        "answer": answer,
        "picture": i % 2,
        "image": pictures[i % 2],
        "anchors": (features, positions),
      }
    )
  return found


def example_values(found: list[dict]) -> dict:
  values = {f"picture_{i}": found[i]["image"] for i in range(2)}
  for i, example in enumerate(found):
    values[f"{i}/input_ids"] = np.array(example["input_ids"], np.uint8)
    values[f"{i}/answer"] = np.uint8(example["answer"])
    values[f"{i}/picture"] = np.uint8(example["picture"])
    values[f"{i}/features"], values[f"{i}/positions"] = example["anchors"]
  return values


def loss_of(adapted: Adapted, base: Path, example: dict):
  adapted.anchors = example["anchors"]
  inputs = inputs_of(base, example["input_ids"], [example["image"]])
  labels = labels_of(example["input_ids"], example["answer"])
  return adapted.model(**inputs, labels=labels, use_cache=False)


def adapter_values(base: Path, adapter: Path, found: list[dict]) -> dict:
  """Logits, loss and greedy tokens of two examples, gradients of the first."""
  values = {}
  for i in (1, 4):
    adapted, example = Adapted(base, adapter), found[i]
    out = loss_of(adapted, base, example)
    out.loss.backward()
    values[f"{i}/logits"] = out.logits[0].detach().numpy()
    values[f"{i}/loss"] = np.float32(out.loss.item())
    for name, parameter in adapted.trained(1).items() if i == 1 else ():
      values[f"{i}/grad.{name}"] = parameter.grad[:ROWS].numpy()
    ids = example["input_ids"][: -example["answer"]]
    with torch.no_grad():
      new = adapted.model.generate(
        **inputs_of(base, ids, [example["image"]]),
        do_sample=False,
        max_new_tokens=16,
      )
    values[f"{i}/generated"] = new[0, len(ids) :].numpy().astype(np.uint8)
  return values


def training_values(base, adapter, found, stage: int) -> dict:
  """Six steps of 4 examples, as the official code takes them."""
  adapted = Adapted(base, adapter)
  trained = adapted.trained(stage)
  optimizer = torch.optim.AdamW(
    trained.values(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0
  )
  schedule = transformers.get_linear_schedule_with_warmup(
    optimizer, WARMUP, STEPS
  )
  record = {"loss": [], "grad_norm": [], "learning_rate": []}
  for step in range(STEPS):
    total = 0.0
    for k in range(BATCH):
      example = found[(step * BATCH + k) % len(found)]
      loss = loss_of(adapted, base, example).loss / BATCH
      loss.backward()
      total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
    record["loss"].append(total)
    record["grad_norm"].append(norm.item())
    record["learning_rate"].append(schedule.get_last_lr()[0])
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)
  values = {name: np.array(of) for name, of in record.items()}
  for name, parameter in trained.items():
    values[f"final.{name}"] = parameter.detach()[:ROWS].numpy()
  return values


def make(folder: Path) -> None:
  """Writes everything; what the folder held is replaced."""
  shutil.rmtree(folder, ignore_errors=True)
  base, adapter = folder / "base", folder / "adapter"
  folder.mkdir(parents=True)
  make_base(base, SEED_BASE)
  make_adapter(adapter, base, SEED_ADAPTER)
  found = examples()
  files = {
    "tlm": tlm_values(),
    "mrope": mrope_values(base),
    "base": base_values(base),
    "examples": example_values(found),
    "adapter": adapter_values(base, adapter, found),
    "stage1": training_values(base, adapter, found, 1),
    "stage2": training_values(base, adapter, found, 2),
  }
  for name, values in files.items():
    np.savez_compressed(folder / f"{name}.npz", **values)


if __name__ == "__main__":
  default = Path(__file__).resolve().parent / "values"
  make(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
