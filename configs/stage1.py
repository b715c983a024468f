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
`:model=init` takes the shapes from config.init, whatever they are.
"""

from ml_collections import ConfigDict

from fusar_jax.config import model_values, parse_arg


def get_config(arg=None):
  arg = parse_arg(arg, model="qwen2_5_vl_7b", data="", train="tlm+lora")
  if arg.train not in ("tlm+lora", "tlm"):
    raise ValueError(f"train={arg.train!r}: expected tlm+lora or tlm.")
  small = arg.model in ("tiny", "bench", "init")
  config = ConfigDict()

  # A Hugging Face folder or a run; an adapter in the official layout over it.
  config.init = "tiny-base" if arg.model == "tiny" else ""
  config.adapter = ""
  config.tokenizer = ""  # Empty: the one of config.init.
  config.seed = 42

  config.model = model_values(arg.model)
  config.model.lora.rank = 8 if arg.train == "tlm+lora" else 0
  config.model.lora.alpha = 32.0
  config.model.lora.dropout = 0.05

  # First match wins; every parameter must match one rule.
  config.trainable = [
    (r"tlm/.*", True),
    (r".*/lora_[ab]", True),
    (r".*", False),
  ]
  if arg.train == "tlm":
    config.trainable.pop(1)

  config.data = ConfigDict()
  config.data.train = arg.data
  config.data.eval = ""
  config.data.max_length = 2048  # A longer example is an error.
  config.data.buckets = (512, 640, 768, 1024, 2048)
  config.data.answer_buckets = (32, 128, 512)
  config.data.patch_buckets = ()  # Of images of several sizes; patches.
  # Tokens of a row that holds as many samples as fit; 0: a row to each.
  config.data.pack_length = 0
  # Batches drawn at a time and dealt out by length; 1: as drawn.
  config.data.pool_batches = 8 if small else 1
  config.data.num_workers = 0 if small else 8
  config.data.loss_weighting = "example"
  config.data.anchors = "aligned"  # Or a control: data/anchor_conditions.py.
  config.data.anchor_grid = 0  # g: thinned to g x g nodes; 0: as stored.
  # Visual tokens say what lies in their cells, if a row has boxes; the loss of
  # that, in answers (0: not asked).
  config.data.cell_weight = 0.0
  if small:
    config.data.buckets = (96, 128, 192, 384)

  config.batch_size = 16
  config.accumulation = 1 if small else 4
  config.epochs = 30
  config.steps = 0  # Positive: instead of epochs.

  config.optimizer = ConfigDict()
  config.optimizer.learning_rate = 1e-3 if small else 1e-4
  config.optimizer.warmup_steps = 0
  config.optimizer.warmup_ratio = 0.05
  config.optimizer.b1 = 0.9
  config.optimizer.b2 = 0.999
  config.optimizer.eps = 1e-8
  config.optimizer.weight_decay = 0.0
  config.optimizer.clip_norm = 1.0
  # Factor on the learning rate, by trainable parameter.
  config.optimizer.rates = [(r".*", 1.0)]
  config.offload_optimizer = False  # Moments in the host's memory.

  config.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})
  config.dtype = ConfigDict()
  config.dtype.compute = "float32" if small else "bfloat16"
  config.dtype.frozen = "float32" if small else "bfloat16"  # Or int8.
  config.remat = "none" if small else "full"
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
