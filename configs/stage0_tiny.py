"""Stage 0: a tiny stand-in for Qwen2.5-VL, trained in full from nothing.

No pretrained backbone can be shipped, so laptops and tests start from this one:
3.8 M parameters, 168 x 168 pixels, a SentencePiece vocabulary of 1024 pieces
that is trained from the words of the data. It has neither LoRA nor TLM; stages
1 and 2 add them as they do to the real model.

Its data are the rows of `simulate --pretraining-tasks`: the questions of both
stages, from images alone. Real images can be added (manifests with commas); the
model then carries their licence terms. All questions of an image share a row
(`pack_by_image`), and rows are padded to few lengths.

COMMAND (a laptop; `make base` runs all steps of the shipped base):
  python -m fusar_jax.simulate --out data/base --scenes 20000 \
      --pretraining-tasks
  python -m fusar_jax.train --config configs/stage0_tiny.py \
      --config.data.train=data/base/pretraining_tasks.jsonl \
      --workdir runs/stage0
"""

from fusar_jax.config import parse_arg, sibling

base = sibling(__file__, "base")
SWITCHES = {"model": "tiny", "data": ""}


def get_config(arg=None):
  arg = parse_arg(arg, **SWITCHES)
  config = base.get_config(arg)
  config.update_from_flattened_dict(base.TINY)

  config.model.lora.rank = 0
  config.model.tlm = None
  config.trainable = [(r".*", True)]

  config.data.pack_by_image = True
  config.data.pack_length = 320
  config.data.buckets = (192, 224, 256, 288)
  config.data.answer_buckets = (288, 352)
  config.data.cell_weight = 0.7

  # Rows of one scene each, three to four questions in a row.
  config.batch_size = 8
  config.epochs = 20
  config.optimizer.learning_rate = 1e-3
  config.optimizer.b2 = 0.99  # Short runs: moments of the last 100 steps.
  config.optimizer.weight_decay = 0.01
  return config.lock()
