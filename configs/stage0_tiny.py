"""Stage 0: a tiny stand-in for Qwen2.5-VL, trained in full from nothing.

No pretrained backbone can be shipped, so laptops and tests start from this one:
3.8 M parameters, 168 x 168 pixels, a SentencePiece vocabulary of 1024 pieces
that is trained from the words of the data. It has neither LoRA nor TLM; stages
1 and 2 add them as they do to the real model.

Its data are those of `simulate --pretraining-tasks`: the questions of both
stages, from images alone. Real images can be added (manifests with commas); the
model then carries their licence terms. All questions of an image share a row
(`pack_by_image`), and rows are padded to few lengths.

Random weights learn it in phases, each from the one before:
  see   pretraining_see.jsonl    what each visual token shows: auxiliary targets
  one   pretraining_one.jsonl    to answer about the only target of a scene
  two   pretraining_two.jsonl    to select one of two
  all   pretraining_tasks.jsonl  the rest; also what fine-tuning starts with
With all questions from the start, answers still ignored the image after 1100
steps.

COMMAND (`make base` runs the four phases; the first and the second are):
  python -m fusar_jax.simulate --out data/base --scenes 20000 \
      --pretraining-tasks
  python -m fusar_jax.train --config configs/stage0_tiny.py:phase=see \
      --config.data.train=data/base/pretraining_see.jsonl \
      --config.tokenizer=data/base/pretraining_tasks.jsonl \
      --workdir runs/base/see
  python -m fusar_jax.train --config configs/stage0_tiny.py:phase=one \
      --config.data.train=data/base/pretraining_one.jsonl \
      --config.init=runs/base/see --workdir runs/base/one
"""

from fusar_jax.config import parse_arg, sibling

base = sibling(__file__, "base")
SWITCHES = {"model": "tiny", "data": "", "phase": "all"}
PHASES = {
  "see": {
    # Rows of one caption each.
    "batch_size": 16,
    "steps": 3000,
    "data.buckets": (96, 112, 128, 160, 192),
    "data.answer_buckets": (64, 80, 96, 128),
    "data.cell_weight": 8.0,
  },
  "one": {"steps": 500, "data.pack_length": 256},
  "two": {"steps": 1000},
  "all": {"batch_size": 16, "steps": 4600},
}


def get_config(arg=None):
  arg = parse_arg(arg, **SWITCHES)
  if arg.phase not in PHASES:
    raise ValueError(f"phase={arg.phase!r}: expected {', '.join(PHASES)}.")
  config = base.get_config(arg)
  config.update_from_flattened_dict(base.TINY)

  config.model.lora.rank = 0
  config.model.tlm = None
  config.trainable = [(r".*", True)]

  # Rows of one scene each, three to six questions in a row.
  config.batch_size = 8
  config.data.pack_by_image = True
  config.data.pack_length = 320
  config.data.buckets = (192, 224, 256, 288)
  config.data.answer_buckets = (288, 352)
  config.data.cell_weight = 2.0

  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.99  # Short runs: moments of the last 100 steps.
  config.optimizer.weight_decay = 0.01
  config.update_from_flattened_dict(PHASES[arg.phase])
  return config.lock()
