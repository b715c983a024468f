"""Stage 1: knowledge injection. TLM learns to speak to the visual tokens.

Image + anchors + descriptive text. Recipe of the official code: 30 epochs,
1e-4, 16 images a step (4 accumulated), LoRA r 8 on the language projections.
`:train=tlm` trains the TLM alone, as the paper's equations have it; the
official code, and the default here, trains TLM and LoRA.

COMMAND (7B, from a Hugging Face folder of Qwen2.5-VL-7B-Instruct):
  python -m fusar_jax.train --config configs/stage1.py \
      --config.init=Qwen2.5-VL-7B-Instruct \
      --config.data.train=data/captions/manifest.jsonl --workdir runs/stage1
COMMAND (the tiny base that comes with the package, on a laptop):
  python -m fusar_jax.train --config configs/stage1.py:model=tiny \
      --config.data.train=data/captions/manifest.jsonl --workdir runs/stage1
`:model=init` takes the shapes from config.init, and nothing else changes: a
7B or 72B folder trains by the official recipe. `:recipe=tiny` is the recipe of
a small model (short buckets, float32, 1e-3); `:model=tiny` implies it.
"""

from fusar_jax.config import parse_arg, sibling

base = sibling(__file__, "base")
SWITCHES = {
  "model": "qwen2_5_vl_7b",
  "recipe": "",
  "data": "",
  "train": "tlm+lora",
}


def get_config(arg=None):
  arg = parse_arg(arg, **SWITCHES)
  if arg.train not in ("tlm+lora", "tlm"):
    raise ValueError(f"train={arg.train!r}: expected tlm+lora or tlm.")
  config = base.get_config(arg)
  config.init = "tiny-base" if arg.model == "tiny" else ""

  config.model.lora.update(rank=8, alpha=32.0, dropout=0.05)
  config.trainable = [
    (r"tlm/.*", True),
    (r".*/lora_[ab]", True),
    (r".*", False),
  ]
  if arg.train == "tlm":
    config.model.lora.rank = 0
    config.trainable.pop(1)

  config.epochs = 30
  config.optimizer.learning_rate = 1e-4
  return base.finish(config, arg)
