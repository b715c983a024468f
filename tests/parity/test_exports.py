"""Exports run in transformers with the code of their README and the docs.

Each runs in a separate process without network access, as a user would run it.
"""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import fusar_jax
from fusar_jax.data import prompts
from fusar_jax.hf import handoff
from fusar_jax.hf.model_card import CARD
from tests.parity.fresh_process import DOCS, NO_VIDEOS, block, run

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
  code = block(DOCS, "plain")
  # The export's own README shows the same.
  card = "".join(
    line
    for line in block(folder / CARD).splitlines(keepends=True)
    if not line.startswith("#")
  )
  assert card == code.removeprefix("# plain\n")
  row = rows[0]
  # Not the model's size, nor its aspect.
  image = Image.open(row.images[0]).convert("RGB").resize((200, 150))
  image.save(tmp_path / "wide.png")
  out = tmp_path / "out.npz"
  got = run(
    NO_VIDEOS + code + SAVE_PLAIN,
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
  got = run(
    block(DOCS, "tlm") + SAVE_TLM,
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


def test_torch_loads_what_goes_to_vllm_s_server(unmerged, rows):
  import torch

  image = handoff.resize_images([rows[0].images[0]], unmerged.config)
  tokens = [np.arange(36 * 4, dtype=np.float32).reshape(36, 4)]
  part, _ = handoff.openai_content("A?", image, tokens, unmerged.config)
  for name, want in (
    ("image_embeds", tokens[0]),
    ("image_grid_thw", [1, 12, 12]),
  ):
    data = io.BytesIO(base64.b64decode(part["image_embeds"][name]))
    got = torch.load(data, weights_only=True)
    assert got.numpy().tolist() == np.asarray(want).tolist()


def test_the_docs_load_the_adapter_in_peft(
  tmp_path, base_and_adapter, rows, unmerged, agree
):
  """On the exported base, with the TLM handed over; tokenizer in both."""
  base, adapter = base_and_adapter
  row = rows[0]
  image, anchors = row.images[0], row.anchors[0]
  both = fusar_jax.load(base, adapter=adapter)
  inputs = handoff.decoder_inputs(
    row.question, [image], both.config, both.tokenizer
  )
  [tokens] = both.visual_tokens([image], [anchors])
  np.savez(tmp_path / "given.npz", tokens=tokens, **inputs)
  got = run(
    block(DOCS, "peft") + SAVE_PEFT,
    tmp_path / "out.npz",
    base=str(base),
    adapter=str(adapter),
    given=str(tmp_path / "given.npz"),
  )
  ids = inputs["input_ids"][0]
  agree(got["logits"], unmerged.logits(ids, [image], [anchors]))
