"""Exports run in transformers with the code of their README and the docs.

Each runs in a separate process without network access, as a user would run it.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import fusar_jax
from fusar_jax import simulate
from fusar_jax.data import prompts
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.data.triplets import read_manifest
from fusar_jax.hf import handoff, mapping
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.folders import TINY_BASE, resolve
from fusar_jax.hf.load import load_base
from fusar_jax.hf.model_card import CARD
from fusar_jax.hf.peft import write_adapter
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.config import LoRAConfig, TLMConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten

DOCS = Path(__file__).resolve().parents[2] / "docs" / "export.md"

# AutoProcessor asks for torchvision, because it loads a processor of videos.
# Where it is not installed that one part is replaced; there are no videos.
BEFORE = """
import importlib.util
import socket
import sys
import numpy as np

def refuse(*args):
  raise OSError("an export must load without a network")

socket.socket.connect = refuse
if importlib.util.find_spec("torchvision") is None:
  from transformers.processing_utils import ProcessorMixin
  from transformers.video_processing_utils import BaseVideoProcessor

  class NoVideos(BaseVideoProcessor):
    def __init__(self):
      pass

  videos = "transformers.models.auto.video_processing_auto"
  auto = importlib.import_module(videos).AutoVideoProcessor
  auto.from_pretrained = classmethod(lambda *args, **kwargs: NoVideos())
  ProcessorMixin.check_argument_for_proper_class = lambda *args: None
"""


def _block(page: Path, name: str = "") -> str:
  """The Python block of a page that begins with "# NAME"."""
  blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
  [block] = [b for b in blocks if b.startswith(f"# {name}\n") or not name]
  return block


def _run(code: str, out: Path, **names) -> dict:
  """Runs code in a fresh process; returns the arrays that it saved."""
  names["out"] = str(out)
  given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
  script = out.with_suffix(".py")
  script.write_text(BEFORE + given + code)
  done = subprocess.run(
    [sys.executable, script],
    capture_output=True,
    text=True,
    env=os.environ | {"HF_HUB_OFFLINE": "1"},
    cwd=DOCS.parent.parent,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  with np.load(out) as file:
    return dict(file)


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


@pytest.fixture(scope="module")
def unmerged(model):
  """Ours, as it was before the export, with the original tokenizer."""
  config, params = model
  return Assistant(config, params, load_tokenizer(resolve(TINY_BASE)))


SAVE_PLAIN = """
import torch
with torch.no_grad():
  logits = model(**inputs).logits[0]
arrays = {name: value.numpy() for name, value in inputs.items()}
np.savez(out, logits=logits.numpy(), answer=answer, **arrays)
"""


def test_the_plain_model_is_asked_as_we_ask_it(
  tmp_path, folder, rows, unmerged, agree
):
  """Ids, pixels and grid equal; logits and greedy answer without anchors."""
  code = _block(DOCS, "plain")
  # The export's own README shows the same.
  card = "".join(
    line
    for line in _block(folder / CARD).splitlines(keepends=True)
    if not line.startswith("#")
  )
  assert card == code.removeprefix("# plain\n")
  row = rows[0]
  # Not the model's size, nor its aspect.
  image = Image.open(row.images[0]).convert("RGB").resize((200, 150))
  image.save(tmp_path / "wide.png")
  out = tmp_path / "out.npz"
  got = _run(
    code + SAVE_PLAIN,
    out,
    folder=str(folder),
    path=str(tmp_path / "wide.png"),
    question=row.question,
  )
  config, tokenizer = unmerged.config, unmerged.tokenizer
  want = handoff.decoder_inputs(row.question, [image], config, tokenizer)
  want |= handoff.pixel_values([image], config)
  values = want.pop("pixel_values")
  np.testing.assert_allclose(got.pop("pixel_values"), values, atol=3e-7)
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, err_msg=name)
  ids = want["input_ids"][0]
  agree(got["logits"], unmerged.logits(ids, [image]))
  assert str(got["answer"]) == unmerged.ask(
    image, row.question, max_new_tokens=2048
  )


SAVE_TLM = """
np.savez(out, logits=logits.numpy(), new=new, answer=answer)
"""


def test_the_docs_hand_over_the_tlm(tmp_path, folder, rows, unmerged, agree):
  """Three images in one question, one of them without anchors."""
  images = [str(row.images[0]) for row in rows]
  anchors = [str(rows[0].anchors[0]), None, str(rows[2].anchors[0])]
  question, out = rows[0].question, tmp_path / "out.npz"
  got = _run(
    _block(DOCS, "tlm") + SAVE_TLM,
    out,
    folder=str(folder),
    images=images,
    anchors=anchors,
    question=question,
  )
  ids = prompts.encode_prompt(unmerged.tokenizer, question, [36] * 3)
  logits = unmerged.logits(ids, images, anchors)
  agree(got["logits"], logits)
  # The anchors matter here, far beyond the tolerance.
  plain = unmerged.logits(ids, images)
  assert np.abs(plain - logits).max() > 0.01 * np.abs(logits).max()
  new = unmerged.generate(ids, images, anchors, max_new_tokens=64)
  assert got["new"].tolist() == new
  assert str(got["answer"]) == unmerged.tokenizer.decode(new)


SAVE_PEFT = """
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

with np.load(given) as file:
  inputs = {name: torch.from_numpy(file[name]) for name in file.files}
tokens = inputs.pop("tokens")
modulated = {"image": BaseModelOutputWithPooling(pooler_output=(tokens,))}
with torch.no_grad():
  logits = model(**inputs, mm_encoder_outputs=modulated).logits[0]
np.savez(out, logits=logits.numpy())
"""


def test_the_docs_load_the_adapter_in_peft(
  tmp_path, model, rows, unmerged, agree
):
  """On the exported base, with the TLM handed over; tokenizer in both."""
  config, params = model
  plain = dataclasses.replace(config, tlm=None, lora=LoRAConfig())
  base, adapter = tmp_path / "base", tmp_path / "adapter"
  leaves = mapping.leaf_shapes(config)
  flat = {p: leaf for p, leaf in flatten(params).items() if p in leaves}
  words = resolve(TINY_BASE)
  export_merged(base, plain, unflatten(flat), tokenizer=words)
  write_adapter(adapter, config, params, str(base), tokenizer=words)
  row = rows[0]
  image, anchors = row.images[0], row.anchors[0]
  both = fusar_jax.load(base, adapter=adapter)
  inputs = handoff.decoder_inputs(
    row.question, [image], both.config, both.tokenizer
  )
  [tokens] = both.visual_tokens([image], [anchors])
  np.savez(tmp_path / "given.npz", tokens=tokens, **inputs)
  got = _run(
    _block(DOCS, "peft") + SAVE_PEFT,
    tmp_path / "out.npz",
    base=str(base),
    adapter=str(adapter),
    given=str(tmp_path / "given.npz"),
  )
  ids = inputs["input_ids"][0]
  agree(got["logits"], unmerged.logits(ids, [image], [anchors]))
