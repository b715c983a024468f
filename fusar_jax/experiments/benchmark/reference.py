"""PyTorch reference: transformers' Qwen2.5-VL, peft's LoRA, TLM in torch.

Settings of the official training code: one image at a time, logits at every
position, accumulation 4, sdpa, float32; and the same with several images at a
time, which the official code does not do. Needs the `parity` extra.
"""

from pathlib import Path

import numpy as np
import peft
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl

from fusar_jax.experiments.benchmark import workload
from fusar_jax.experiments.benchmark.measurements import BATCH


class Reference:
  """The model; each method call is one measured operation."""

  def __init__(self, folder: Path):
    config, self._shape, self._samples = workload.read(folder)
    self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    self._dtype = getattr(torch, workload.read_dtype(folder))
    if config.tlm is None:
      raise ValueError("the benchmark needs a model with TLM.")
    self._sigma = config.tlm.sigma
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
      folder / "base", dtype=self._dtype, attn_implementation="sdpa"
    )
    self._model = peft.PeftModel.from_pretrained(
      model, folder / "adapter", is_trainable=True
    ).to(self._device)
    self._processor = (
      image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil.from_pretrained(
        folder / "base"
      )
    )
    state = torch.load(folder / "adapter" / "vec64_film.pt", weights_only=True)
    hidden, bands = state["film_mlp"]["0.weight"].shape
    self._film = torch.nn.Sequential(
      torch.nn.Linear(bands, hidden),
      torch.nn.SiLU(),
      torch.nn.Linear(hidden, len(state["film_mlp"]["2.bias"])),
    )
    self._film.load_state_dict(state["film_mlp"])
    self._film.to(self._device)
    self._files = workload.image_files(folder)
    # Features and positions of the current samples.
    self._anchors: list[tuple[torch.Tensor, torch.Tensor]]
    self._optimizer = None
    adapted = [p for p in self._model.parameters() if p.requires_grad]
    self._start = [
      (p, p.detach().clone()) for p in (*adapted, *self._film.parameters())
    ]
    visual = next(
      module
      for name, module in self._model.named_modules()
      if name.endswith("model.visual")
    )
    visual.register_forward_hook(self._modulate)

  def train(self, stage: int, rows: int) -> float:
    """Runs one step on 4 samples, `rows` at a time; returns its loss."""
    if self._optimizer is None or self._optimizer[0] != stage:
      self._restart()
      trained = self.trained(stage)
      optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
      self._optimizer = (stage, trained, optimizer)
    _, trained, optimizer = self._optimizer
    total = 0.0
    for start in range(0, BATCH, rows):
      # Answers are equally long, so the mean over tokens is that over samples.
      loss = self.loss(self._samples[start : start + rows])
      share = rows / BATCH
      (loss * share).backward()
      total += loss.item() * share
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total

  def trained(self, stage: int) -> list[torch.nn.Parameter]:
    """Returns the parameters of a stage, and freezes the others."""
    self._film.requires_grad_(stage == 1)
    adapted = [p for p in self._model.parameters() if p.requires_grad]
    return adapted + (list(self._film.parameters()) if stage == 1 else [])

  def loss(self, samples: list[workload.Sample]) -> torch.Tensor:
    """Returns the mean loss of the answers' tokens, with its graph."""
    self._model.train()
    inputs = self._inputs(samples, self._shape.length)
    labels = inputs["input_ids"].clone()
    labels[:, : -self._shape.answer] = -100
    with self._autocast():
      return self._model(**inputs, labels=labels, use_cache=False).loss

  def decode(self, count: int, tokens: int) -> list[list[int]]:
    """Decodes greedily for a batch of `count` samples."""
    self._restart()
    self._model.eval()
    prompt = self._shape.length - self._shape.answer
    with torch.no_grad(), self._autocast():
      out = self._model.generate(
        **self._inputs(self._samples[:count], prompt),
        do_sample=False,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
      )
    return out[:, prompt:].tolist()

  def margin(self, answer: list[int], tokens: list[int]) -> float:
    """Returns the logit of tokens[0] minus that of tokens[1] after `answer`."""
    self._restart()
    self._model.eval()
    sample = workload.answered(self._samples[0], self._shape, answer)
    with torch.no_grad(), self._autocast():
      inputs = self._inputs([sample], len(sample.input_ids))
      logits = self._model(**inputs, use_cache=False).logits[0, -1]
    return float(logits[tokens[0]] - logits[tokens[1]])

  def prepare(self) -> int:
    """Reads all images from their files; returns the number of patches."""
    patches = 0
    for file in self._files:
      with Image.open(file) as image:
        read = self._processor(images=[image], return_tensors="pt")
      patches += len(read["pixel_values"])
    return patches

  def _restart(self) -> None:
    """Restores the initial weights if training changed them."""
    if self._optimizer is not None:
      self._optimizer = None
      with torch.no_grad():
        for parameter, value in self._start:
          parameter.copy_(value)

  def _inputs(self, samples: list[workload.Sample], length: int) -> dict:
    self._anchors = [
      (self._tensor(sample.features), self._tensor(sample.positions))
      for sample in samples
    ]
    ids = self._tensor(
      np.stack([sample.input_ids[:length] for sample in samples])
    ).long()
    images = self._processor(
      images=[sample.image for sample in samples], return_tensors="pt"
    )
    image_token = self._model.config.image_token_id
    return {
      "input_ids": ids,
      "attention_mask": torch.ones_like(ids),
      "pixel_values": images["pixel_values"].to(self._device),
      "image_grid_thw": images["image_grid_thw"].to(self._device),
      "mm_token_type_ids": (ids == image_token).int(),
    }

  def _tensor(self, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(self._device)

  def _autocast(self) -> torch.autocast:
    """As the official code trains in bfloat16."""
    return torch.autocast(
      self._device.type,
      dtype=torch.bfloat16,
      enabled=self._dtype == torch.bfloat16,
    )

  def device_peak(self) -> int:
    """Returns the peak of a GPU's memory so far; 0 on a CPU."""
    on_gpu = self._device.type == "cuda"
    return torch.cuda.max_memory_allocated() if on_gpu else 0

  def _modulate(self, module, inputs, output):
    """Token-wise Linear Modulation as in the official training code."""
    del module, inputs
    tokens = output.pooler_output
    parts = tokens.chunk(len(self._anchors))
    output.pooler_output = torch.cat(
      [
        self._modulated(part, *anchors)
        for part, anchors in zip(parts, self._anchors, strict=True)
      ]
    )
    return output

  def _modulated(self, tokens, features, positions) -> torch.Tensor:
    side = round(len(tokens) ** 0.5)
    cells = torch.arange(2 * side, device=self._device)
    scaled = positions * (2 * side - 1)
    squared = (scaled[:, 0, None, None] - cells[None, :, None]) ** 2 + (
      scaled[:, 1, None, None] - cells[None, None, :]
    ) ** 2
    weights = torch.exp(-squared / (2 * self._sigma**2))
    for _ in range(2):
      weights = weights / (weights.sum(0, keepdim=True) + 1e-6)
    fields = torch.einsum("shw,sc->chw", weights, self._film(features))
    fields = F.interpolate(
      fields[None], size=(side, side), mode="bilinear", align_corners=False
    )
    gamma, beta = fields[0].flatten(1).T.chunk(2, dim=-1)
    return (tokens * (1 + gamma) + beta).to(tokens.dtype)
