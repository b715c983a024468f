"""Exports run in transformers with their own code, anchors included.

By the code of docs/export.md, in a process without a network in which fusar_jax
cannot be imported.
"""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import fusar_jax
from fusar_jax.data import prompts
from fusar_jax.data.padding import pad_batch
from fusar_jax.hf import handoff
from fusar_jax.hf.model_card import CARD
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.paths import flatten, unflatten
from tests.parity.fresh_process import DOCS, block, run

# Of a user who has no fusar_jax.
ALONE = """
sys.modules["fusar_jax"] = None
"""

SAVE_ANCHORS = """
import torch

arrays = {"answer": answer, "new": new[0].numpy()}

def rows_of(model, inputs):
  with torch.no_grad():
    logits = model(**inputs).logits.float().numpy()
  masks = inputs["attention_mask"].bool().numpy()
  return [row[mask] for row, mask in zip(logits, masks)]

chats = [
  [{"role": "user", "content": [{"type": "image"}] * n + [
    {"type": "text", "text": question}]}]
  for n in (1, 3, 1, 0)
]
batch = processor(
  text=processor.apply_chat_template(chats, add_generation_prompt=True),
  images=[images[:1], images, [wide]],
  anchors=[[given] for given in anchors[:1]] + [anchors, [None]],
)
assert (batch["attention_mask"][:, -1] == 1).all()  # padded on the left
for i, row in enumerate(rows_of(model, batch)):
  arrays[f"batch{i}"] = row
def new_of(given, count, **options):
  made = model.generate(
    **given, max_new_tokens=count, pad_token_id=0, **options
  )
  return made[:, given["input_ids"].shape[1] :].numpy()

arrays["greedy"] = new_of(batch, 8)
arrays["use_cache"] = new_of(batch, 4, use_cache=False)
# Beams multiply images and anchors.
beams = {"num_beams": 2, "num_return_sequences": 2}
arrays["beams"] = new_of(batch, 4, **beams)[2:4]
arrays["beams alone"] = new_of(inputs, 4, **beams)
arrays["no anchors"] = rows_of(model, {
  name: value for name, value in inputs.items() if "anchor" not in name
})[0]

# Saved by transformers, loaded again.
model.save_pretrained(again)
processor.save_pretrained(again)
other = AutoModelForImageTextToText.from_pretrained(
  again, trust_remote_code=True
)
same = AutoProcessor.from_pretrained(again, trust_remote_code=True)
inputs = same(text=prompt, images=images, anchors=anchors)
arrays["again"] = rows_of(other, inputs)[0]
plain = {name: value for name, value in inputs.items() if "anchor" not in name}
for name in ("bfloat16", "float16"):
  half = AutoModelForImageTextToText.from_pretrained(
    again, trust_remote_code=True, dtype=getattr(torch, name)
  )
  assert half.dtype == getattr(torch, name)
  arrays[name] = rows_of(half, inputs)[0]
  arrays[name + " plain"] = rows_of(half, plain)[0]

stock = AutoModelForImageTextToText.from_pretrained(folder)
assert type(stock).__module__.startswith("transformers.models")

def error_of(call, *args, **kwargs):
  try:
    call(*args, **kwargs)
  except ValueError as error:
    return str(error)

features = np.zeros((2, 64), np.float32)
for name, call in {
  "the stock model": lambda: stock.generate(**inputs, max_new_tokens=1),
  "rounded": lambda: other(**inputs.to(torch.bfloat16)),
  "too few": lambda: processor(
    text=prompt, images=images, anchors=[None, anchors[0]]
  ),
  "no image": lambda: processor(text=prompt, images=images[:1]),
  "outside": lambda: processor(
    text=prompt, images=images,
    anchors=[None, None, (features, np.full((2, 2), 1.5, np.float32))],
  ),
  "shape": lambda: processor(
    text=prompt, images=images, anchors=[None, None, (features, features)]
  ),
  "no file": lambda: processor(
    text=prompt, images=images, anchors=[None, None, wide]
  ),
  "deep": lambda: processor.resize(np.zeros((56, 56, 3), np.uint16)),
}.items():
  arrays["error: " + name] = error_of(call)

# Of a transformers without this module.
sys.modules["transformers.conversion_mapping"] = None
try:
  exec(open(again + "/modeling_fusar_gpt.py").read(), {"__name__": "old"})
except ImportError as error:
  arrays["error: old"] = str(error)
np.savez(out, **arrays)
"""


def test_the_docs_load_the_remote_code(tmp_path, folder, rows, unmerged, agree):
  """Batches, beams, 16 bits, a model saved again, errors."""
  images = [str(row.images[0]) for row in rows]
  anchors = [str(rows[0].anchors[0]), None, str(rows[2].anchors[0])]
  question = rows[0].question
  wide = tmp_path / "wide.png"
  Image.open(images[1]).convert("RGB").resize((200, 150)).save(wide)
  code = block(DOCS, "anchors")
  assert block(folder / CARD, "anchors") == code
  code = code.replace("max_new_tokens=2048", "max_new_tokens=64")
  got = run(
    ALONE + code + SAVE_ANCHORS,
    tmp_path / "out.npz",
    folder=str(folder),
    images=images,
    anchors=anchors,
    question=question,
    wide=str(wide),
    again=str(tmp_path / "again"),
  )
  samples = [
    (images[:1], anchors[:1]),
    (images, anchors),
    ([str(wide)], [None]),
    ([], []),
  ]
  seen = [
    (handoff.resize_images(paths, unmerged.config), given)
    for paths, given in samples
  ]
  asked = [
    prompts.encode_prompt(unmerged.tokenizer, question, [36] * len(pixels))
    for pixels, _ in seen
  ]
  # One program for all answers: compiling takes most of the time here.
  examples = [
    unmerged.example(ids, pixels, given)
    for ids, (pixels, given) in zip(asked, seen, strict=True)
  ]
  answers = unmerged.generate_batch(
    pad_batch(examples, config=unmerged.config), max_new_tokens=64
  )
  wanted_logits = [
    unmerged.logits(ids, pixels, given)
    for ids, (pixels, given) in zip(asked, seen, strict=True)
  ]
  for i, (pixels, _) in enumerate(seen):
    ids, new, logits = asked[i], answers[i], wanted_logits[i]
    agree(got[f"batch{i}"], logits)
    for name, count in (("greedy", 8), ("use_cache", 4)):
      wanted = new[:count]
      assert got[name][i, : len(wanted)].tolist() == wanted, (name, i)
    if len(pixels) == 3:
      beams = got["beams alone"]
      assert got["beams"][:, : beams.shape[1]].tolist() == beams.tolist()
      agree(got["again"], logits)
      plain = got["no anchors"]
      agree(plain, unmerged.logits(ids, pixels))
      scale = np.abs(logits).max()
      assert np.abs(plain - logits).max() > 0.01 * scale
      # Off by rounding alone, as the model without TLM is.
      for name in ("bfloat16", "float16"):
        off = np.abs(got[name] - logits).mean()
        assert off < 2 * np.abs(got[name + " plain"] - plain).mean(), name
      effect = np.abs(plain - logits).mean()
      assert np.abs(got["float16"] - logits).mean() < 0.5 * effect
      assert got["new"].tolist() == new
      assert str(got["answer"]) == unmerged.tokenizer.decode(
        new, skip_special=True
      )
  for name, part in {
    "the stock model": "anchor_features",
    "rounded": "inputs.to(DEVICE) without a dtype",
    "too few": "2 entries of anchors for 3 image(s)",
    "no image": "3 <|image_pad|> in the prompts, but 1 image(s)",
    "outside": "anchors of image 2: positions must be",
    "shape": "expected [S, 64] and [S, 2]",
    "no file": "not an .npz with features and positions",
    "deep": "Stretch the amplitude",
    "old": "it was tested with 5.23",
  }.items():
    assert part in str(got[f"error: {name}"]), name
  # fusar_jax reads what transformers has written.
  again = fusar_jax.load(tmp_path / "again")
  agree(again.logits(asked[1], images, anchors), wanted_logits[1])
  assert again.config.image_size == unmerged.config.image_size


SAVE_ADAPTER = """
import torch

content = [{"type": "image"}, {"type": "text", "text": question}]
prompt = processor.apply_chat_template(
  [{"role": "user", "content": content}], add_generation_prompt=True
)
inputs = processor(text=prompt, images=image, anchors=anchors)
with torch.no_grad():
  logits = model(**inputs).logits[0].numpy()
  with model.disable_adapter():
    tlm_only = model(**inputs).logits[0].numpy()
new = model.generate(**inputs, max_new_tokens=16)[
  0, inputs["input_ids"].shape[1] :
].numpy()
np.savez(out, logits=logits, tlm_only=tlm_only, new=new)
"""


def test_the_docs_load_the_adapter_with_its_own_code(
  tmp_path, model, base_and_adapter, rows, unmerged, agree
):
  """On a base without TLM: LoRA and TLM together, and the TLM alone."""
  base, adapter = base_and_adapter
  assert not list(base.glob("*.py"))
  row, code = rows[0], block(DOCS, "adapter")
  assert block(adapter / CARD, "adapter") == code
  got = run(
    ALONE + code + SAVE_ADAPTER,
    tmp_path / "out.npz",
    base=str(base),
    adapter=str(adapter),
    image=str(row.images[0]),
    anchors=str(row.anchors[0]),
    question=row.question,
  )
  images, anchors = [row.images[0]], [row.anchors[0]]
  ids = prompts.encode_prompt(unmerged.tokenizer, row.question, [36])
  agree(got["logits"], unmerged.logits(ids, images, anchors))
  new = unmerged.generate(ids, images, anchors, max_new_tokens=16)
  assert got["new"].tolist() == new
  config, params = model
  no_lora = dataclasses.replace(config, lora=LoRAConfig())
  kept = {p: a for p, a in flatten(params).items() if "/lora_" not in p}
  alone = Assistant(no_lora, unflatten(kept))
  agree(got["tlm_only"], alone.logits(ids, images, anchors))
