"""Stage 0: a tiny stand-in for Qwen2.5-VL, trained in full from nothing.

No pretrained backbone can be shipped, so laptops and tests start from this one:
3.8 M parameters, 168 x 168 pixels, a SentencePiece vocabulary of 1024 pieces
that is trained from the words of the data. It has neither LoRA nor TLM; stages
1 and 2 add them as they do to the real model.

Its data are rows that `simulate --looking` writes: where things are and what
they are called, of images alone. Real images can be added (manifests with
commas); what was so made carries their terms.

COMMAND (a laptop; `make base` makes the shipped one so, in all its steps):
  python -m fusar_jax.simulate --out data/base --scenes 16000 --looking
  python -m fusar_jax.train --config configs/stage0_tiny.py \
      --config.data.train=data/base/looking.jsonl --config.steps=6000 \
      --workdir runs/stage0
"""

from ml_collections import ConfigDict

from fusar_jax.config import model_values, parse_arg


def get_config(arg=None):
  arg = parse_arg(arg, model="tiny", data="")
  config = ConfigDict()

  config.init = ""  # Empty: random weights.
  config.adapter = ""
  config.tokenizer = ""  # Empty: trained from data.train.
  config.seed = 42

  config.model = model_values(arg.model)
  config.model.lora.rank = 0
  config.model.tlm = None

  config.trainable = [(r".*", True)]

  config.data = ConfigDict()
  config.data.train = arg.data
  config.data.eval = ""
  config.data.max_length = 2048  # A longer example is an error.
  config.data.buckets = (72, 96, 144, 256)
  config.data.answer_buckets = (128, 176, 272)
  config.data.patch_buckets = ()  # Of images of several sizes; patches.
  # Tokens of a row that holds as many samples as fit; 0: a row to each.
  config.data.pack_length = 0
  # Batches drawn at a time and dealt out by length; 1: as drawn.
  config.data.pool_batches = 8
  config.data.num_workers = 0
  config.data.loss_weighting = "example"
  config.data.anchors = "aligned"  # Or a control: data/anchor_conditions.py.
  config.data.anchor_grid = 0  # g: thinned to g x g nodes; 0: as stored.
  # Visual tokens say what lies in their cells, if a row has boxes; the loss of
  # that, in answers (0: not asked).
  config.data.cell_weight = 1.0

  config.batch_size = 16
  config.accumulation = 1
  config.epochs = 20
  config.steps = 0  # Positive: instead of epochs.

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 0
  config.optimizer.warmup_ratio = 0.05
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.99  # Short runs: moments of the last 100 steps.
  config.optimizer.eps = 1e-8
  config.optimizer.weight_decay = 0.01
  config.optimizer.clip_norm = 1.0
  # Factor on the learning rate, by trainable parameter.
  config.optimizer.rates = [(r".*", 1.0)]
  config.offload_optimizer = False  # Moments in the host's memory.

  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.dtype = ConfigDict()
  config.dtype.compute = "float32"
  config.dtype.frozen = "float32"
  config.remat = "none"
  config.attention = "auto"  # blocked on one CPU device, else xla.
  config.head_chunk = 256

  config.log_every_steps = 10
  config.eval_every_steps = 0  # 0: at the end, if there is data.eval.
  config.save_every_steps = 200
  config.keep = 2
  config.keep_best_by = ""  # "eval_loss": its lowest is kept besides.
  config.patience = 0  # Evaluations without a better one that end the run.
  config.skip_nonfinite = 0  # Batches that may be skipped; 0: stop at once.
  config.profile_at_step = 0  # Traced from there into workdir/profile.
  config.profile_steps = 3
  config.compile_cache = ""  # Empty: workdir/compiled.
  return config.lock()
