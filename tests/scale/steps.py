"""What run.py measures and the commands do not have: see there.

write PRESET FOLDER SIZE; ours and transformers FOLDER DTYPE SIZE TOKENS FILE.
The last line of the output is what was measured, as JSON.
"""

import dataclasses
import json
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np

_TEXT = 160
# Tokens of the prompt for decoding, short since reading it is not measured.
_SHORT = 16


def write(preset: str, folder: str, size: str) -> dict:
  from fusar_jax.config import PRESETS
  from fusar_jax.experiments.random_checkpoint import write_random_checkpoint
  from fusar_jax.hf.folders import TINY_BASE, resolve

  del size
  config = dataclasses.replace(
    PRESETS[preset],
    tlm=None,
    # Tokens of the package's small tokenizer: the published one is a download.
    tokens=PRESETS["tiny"].tokens,
    image_size=None,
  )
  write_random_checkpoint(folder, config)
  for file in resolve(TINY_BASE).glob("*tokenizer*"):
    shutil.copy(file, folder)
  files = Path(folder).glob("*.safetensors")
  return {"checkpoint_gb": round(sum(f.stat().st_size for f in files) / 1e9, 2)}


def ours(folder: str, dtype: str, size: str, tokens: str, file: str) -> dict:
  import jax
  import jax.numpy as jnp

  import fusar_jax
  from fusar_jax.inference.assistant import Assistant

  began = time.monotonic()
  model = fusar_jax.load(folder, image_size=_image_size(folder, size))
  jax.block_until_ready(model.params)
  measured = {"load_seconds": time.monotonic() - began, "load_gb": _peak()}
  model = Assistant(
    model.config, model.params, dtype=jnp.dtype(dtype), tokenizer=None
  )
  ids, image = _input(model.config, int(size))

  def forward():
    return model.logits(ids, [image])

  def decode(count: int):
    return model.generate(ids[-_SHORT:], [], max_new_tokens=count)

  logits, answer = _measure(measured, forward, decode, int(tokens))
  np.savez(file, logits=logits, tokens=answer)
  return measured


def transformers(
  folder: str, dtype: str, size: str, tokens: str, file: str
) -> dict:
  import torch
  from transformers import Qwen2_5_VLForConditionalGeneration as Model

  from fusar_jax.hf.config_json import read_config
  from fusar_jax.hf.handoff import inputs_of_ids, pixel_values
  from fusar_jax.hf.load import restrict

  began = time.monotonic()
  model = Model.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
  measured = {"load_seconds": time.monotonic() - began, "load_gb": _peak()}
  config, _ = restrict(
    read_config(Path(folder)), {}, image_size=_image_size(folder, size)
  )
  ids, image = _input(config, int(size))
  arrays = inputs_of_ids(ids, [image], config)
  arrays |= pixel_values([image], config)
  inputs = {name: torch.from_numpy(value) for name, value in arrays.items()}

  @torch.no_grad()
  def forward():
    return model(**inputs).logits[0].float().numpy()

  def decode(count: int):
    made = model.generate(
      input_ids=inputs["input_ids"][:, -_SHORT:],
      max_new_tokens=count,
      do_sample=False,
      repetition_penalty=1.0,
    )
    return made[0, _SHORT:].tolist()

  logits, answer = _measure(measured, forward, decode, int(tokens))
  np.savez(file, logits=logits, tokens=answer)
  return measured


def _measure(measured: dict, forward, decode, new: int):
  """Adds first and second forward pass, and seconds a token, to `measured`."""
  began = time.monotonic()
  forward()
  measured["first_forward_seconds"] = time.monotonic() - began
  began = time.monotonic()
  logits = forward()
  measured["forward_seconds"] = time.monotonic() - began
  seconds = {}
  for count in (1, new):
    decode(count)  # compiles
    began = time.monotonic()
    tokens = decode(count)
    seconds[count] = time.monotonic() - began
  measured["seconds_per_token"] = (seconds[new] - seconds[1]) / (new - 1)
  measured["tokens"] = len(tokens)
  for name, value in measured.items():
    measured[name] = round(value, 3)
  return logits, np.array(tokens)


def _input(config, size: int) -> tuple[list[int], np.ndarray]:
  rng = np.random.default_rng(0)
  tokens = config.tokens
  cells = (size // config.vision.cell) ** 2
  text = rng.integers(10, min(config.decoder.vocab, 1000), _TEXT).tolist()
  image = [tokens.image] * cells
  ids = [tokens.vision_start, *image, tokens.vision_end, *text]
  pixels = rng.integers(0, 256, (size, size, 3)).astype(np.uint8)
  return ids, pixels


def _image_size(folder: str, size: str) -> int | None:
  """The folder of a trained model records its size."""
  from fusar_jax.hf import image_text_file, tlm_file

  recorded = tlm_file.has_tlm(Path(folder)) or image_text_file.read_image_text(
    Path(folder)
  )
  return None if recorded else int(size)


def _peak() -> float:
  status = Path("/proc/self/status").read_text()
  found = re.search(r"VmHWM:\s+(\d+) kB", status)
  assert found is not None
  return int(found[1]) * 1024 / 1e9


if __name__ == "__main__":
  step = {"write": write, "ours": ours, "transformers": transformers}
  print(json.dumps(step[sys.argv[1]](*sys.argv[2:])))
