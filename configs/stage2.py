"""Stage 2: task execution. LoRA learns to answer; all below it is frozen.

Counting, grounding, classification and detection on triplets with boxes, from a
stage-1 run. Recipe of the official code: 5 epochs, 1e-5, 16 images a step.

COMMAND (7B):
  python -m fusar_jax.train --config configs/stage2.py \
      --config.init=runs/stage1 \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/stage2
COMMAND (tiny, on a laptop):
  python -m fusar_jax.train --config configs/stage2.py:model=tiny \
      --config.init=runs/stage1 \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/stage2
COMMAND (from the official adapter of stage 1):
  python -m fusar_jax.train --config configs/stage2.py \
      --config.init=Qwen2.5-VL-7B-Instruct --config.adapter=FUSAR-GPT/stage1 \
      --config.data.train=data/tasks/manifest.jsonl --workdir runs/stage2
`:model=init` takes the shapes from config.init, and nothing else changes;
`:recipe=tiny` is the recipe of a small model, which `:model=tiny` implies.
"""

from fusar_jax.config import parse_arg, sibling

base = sibling(__file__, "base")
SWITCHES = {"model": "qwen2_5_vl_7b", "recipe": "", "data": ""}


def get_config(arg=None):
  arg = parse_arg(arg, **SWITCHES)
  config = base.get_config(arg)

  config.model.lora.update(rank=8, alpha=32.0, dropout=0.05)
  config.trainable = [
    (r".*/lora_[ab]", True),
    (r".*", False),
  ]

  config.epochs = 5
  config.optimizer.learning_rate = 1e-5
  return base.finish(config, arg)
