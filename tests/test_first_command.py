"""The first commands of a user, on a checkpoint in Hugging Face layout.

The checkpoint is random and small; its files, keys and fields are those of
Qwen2.5-VL on the hub, as transformers 4 wrote them.
"""

import dataclasses
import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from fusar_jax.config import from_dict
from fusar_jax.hf import mapping
from fusar_jax.hf.export import export_merged
from fusar_jax.model.paths import unflatten
from fusar_jax.planning.search import Choice
from fusar_jax.training import device_mesh
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.parameters import load_run
from fusar_jax.training.run_config import resolve
from tests.hf.test_config_json import FLAT_7B, OLD_PREPROCESSOR

SPECIAL = [
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|vision_start|>",
  "<|vision_end|>",
  "<|image_pad|>",
]


@pytest.fixture(scope="module")
def published(tmp_path_factory, tiny_model) -> Path:
  """The folder, without generation_config.json."""
  folder = tmp_path_factory.mktemp("hub") / "Qwen2.5-VL-tiny-Instruct"
  tokenizer = _tokenizer()
  ids = {name: tokenizer.token_to_id(name) for name in SPECIAL}
  decoder = dataclasses.replace(
    tiny_model.decoder,
    vocab=tokenizer.get_vocab_size(),
    tie_word_embeddings=False,
  )
  config = dataclasses.replace(
    tiny_model, decoder=decoder, tlm=None, image_size=None
  )
  rng = np.random.default_rng(0)
  params = {
    path: 0.1 * rng.standard_normal(shape).astype(np.float32)
    for path, shape in mapping.leaf_shapes(config).items()
  }
  export_merged(folder, config, unflatten(params))
  tokenizer.save(str(folder / "tokenizer.json"))
  model = FLAT_7B | {
    "hidden_size": decoder.hidden_size,
    "intermediate_size": decoder.intermediate_size,
    "num_hidden_layers": decoder.layers,
    "num_attention_heads": decoder.heads,
    "num_key_value_heads": decoder.kv_heads,
    "vocab_size": decoder.vocab,
    "rope_scaling": {"type": "mrope", "mrope_section": decoder.mrope_section},
    "bos_token_id": ids["<|endoftext|>"],
    "eos_token_id": ids["<|im_end|>"],
    "image_token_id": ids["<|image_pad|>"],
    "vision_start_token_id": ids["<|vision_start|>"],
    "vision_end_token_id": ids["<|vision_end|>"],
    "vision_config": FLAT_7B["vision_config"]
    | {
      "depth": config.vision.depth,
      "hidden_size": config.vision.hidden_size,
      "intermediate_size": config.vision.intermediate_size,
      "num_heads": config.vision.heads,
      "out_hidden_size": config.vision.out_width,
      "fullatt_block_indexes": config.vision.full_attention,
    },
  }
  (folder / "config.json").write_text(json.dumps(model))
  (folder / "preprocessor_config.json").write_text(json.dumps(OLD_PREPROCESSOR))
  (folder / "generation_config.json").unlink()
  return folder


@pytest.mark.parametrize("generation", [False, True])
def test_the_first_command_trains_a_step(
  published, manifest, tmp_path, read_flags, generation, capsys
):
  """Official recipe, eight devices: 16 images in two micro-batches of 8."""
  folder = tmp_path / "Qwen2.5-VL-tiny-Instruct"
  shutil.copytree(published, folder)
  ids = json.loads((folder / "config.json").read_text())
  if generation:
    end, pad = ids["eos_token_id"], ids["bos_token_id"]
    (folder / "generation_config.json").write_text(
      json.dumps({"pad_token_id": pad, "eos_token_id": [end, pad]})
    )
  config, workdir = read_flags(
    [
      "--config=configs/stage1.py:model=init",
      f"--config.init={folder}",
      f"--config.data.train={manifest}",
      f"--workdir={tmp_path / 'stage1'}",
      "--config.steps=1",
      # Smaller, for speed.
      "--config.model.image_size=(56, 56)",
      "--config.data.num_workers=0",
    ]
  )
  result = train_and_evaluate(config, workdir)
  assert result.step == 1
  log = capsys.readouterr().out
  assert "mesh auto: data 8, fsdp 1, tensor 1" in log
  assert "accumulation 4 -> 2: micro-batches of 8 rows" in log
  record = json.loads(Path(workdir, "config.json").read_text())
  assert record["config"]["accumulation"] == 4
  assert record["config"]["mesh"] == "auto"
  assert record["model"]["tokens"]["pad"] == ids["bos_token_id"]
  row = json.loads(Path(workdir, "metrics.jsonl").read_text().splitlines()[-1])
  assert np.isfinite(row["loss"])
  load_run(workdir)


def test_shapes_of_a_preset_suggest_init(
  published, manifest, tmp_path, read_flags
):
  """The error message contains the correct command."""
  config, workdir = read_flags(
    [
      "--config=configs/stage1.py",
      f"--config.init={published}",
      f"--config.data.train={manifest}",
      f"--workdir={tmp_path / 'stage1'}",
    ]
  )
  with pytest.raises(ValueError, match="weights of another model") as error:
    train_and_evaluate(config, workdir)
  hint = re.search(r"`--config FILE.py:(\S+)`", str(error.value))[1]
  assert hint == "model=init"


@pytest.mark.parametrize(
  ("devices", "memory", "mesh", "accumulation"),
  [
    (1, None, (1, 1, 1), 4),
    (8, 95, (8, 1, 1), 2),
    (8, 16, (1, 8, 1), 2),
    (16, 16, (1, 16, 1), 1),
    # The tensor axis splits rows if no accumulation divides the batch.
    (32, 16, (16, 1, 2), 1),
  ],
)
def test_what_plan_prints_is_read_by_train(
  devices, memory, mesh, accumulation, read_flags
):
  """7B, batch 16 accumulated 4 times: what `auto` chooses, `train` takes."""
  stage = "--config=configs/stage2.py"
  config = resolve(read_flags([stage])[0])
  model = from_dict(config.model)
  memory = memory and memory * 2**30
  chosen = device_mesh.layout(config, model, devices, memory)
  assert chosen == (mesh, accumulation)
  samples = Fraction(16, accumulation * devices)
  printed = Choice(mesh, samples, "full").flags(devices, accumulation)
  config = resolve(read_flags([stage, *printed.split()])[0])
  assert device_mesh.layout(config, model, devices, memory) == chosen
  assert (config.batch_size, config.remat) == (16, "full")


def _tokenizer() -> tokenizers.Tokenizer:
  """Returns a byte tokenizer with Qwen's special tokens."""
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=SPECIAL,
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
  )
  made.train_from_iterator(["How many ships are in the image?"], trainer)
  return made
