"""Without AlphaEarth anchors: LoRA on Qwen2.5-VL, no TLM in the model.

Image + question + answer; anchors of the rows are not read. Recipe of the
official train_no_aef: 5 epochs, 1e-5, 16 images a step, images of 504 x 504.
Starts from a plain Qwen2.5-VL, or continues the LoRA of `config.adapter`, a
stage-1 or stage-2 folder included: its TLM is not used.

COMMAND (7B):
  python -m fusar_jax.train --config configs/no_aef.py \
      --config.init=Qwen2.5-VL-7B-Instruct \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/no_aef
COMMAND (from the LoRA of an official adapter):
  python -m fusar_jax.train --config configs/no_aef.py \
      --config.init=Qwen2.5-VL-7B-Instruct --config.adapter=FUSAR-GPT/stage1 \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/no_aef
COMMAND (the tiny base that comes with the package, on a laptop):
  python -m fusar_jax.train --config configs/no_aef.py:model=tiny \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/no_aef
`:model=init` takes the shapes from config.init, and nothing else changes;
`:recipe=tiny` is the recipe of a small model, which `:model=tiny` implies.
"""

from fusar_jax.config import parse_arg, sibling

base = sibling(__file__, "base")
SWITCHES = {"model": "qwen2_5_vl_7b", "recipe": "", "data": ""}


def get_config(arg=None):
  arg = parse_arg(arg, **SWITCHES)
  config = base.get_config(arg)
  config.init = "tiny-base" if arg.model == "tiny" else ""

  config.model.tlm = None
  config.model.lora.update(rank=8, alpha=32.0, dropout=0.05)
  config.trainable = [
    (r".*/lora_[ab]", True),
    (r".*", False),
  ]
  config.data.anchors = "none"

  config.epochs = 5
  config.optimizer.learning_rate = 1e-5
  return base.finish(config, arg)
