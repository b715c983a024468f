"""What the stages share; not a stage itself.

Each stage starts from `get_config`, assigns what differs, and ends with
`finish`. The comment on a field is its meaning: `python -m fusar_jax.train
--help` and docs/config.md show it.
"""

import sys

from ml_collections import ConfigDict

from fusar_jax.config import SMALL_PRESETS, model_values

# `:recipe=tiny`: what suits a model small enough for a laptop.
TINY = {
  "accumulation": 1,
  "data.buckets": (128, 192, 256, 384),
  "data.pack_length": 384,
  "data.pack_by_image": True,
  "data.pool_batches": 8,
  "data.num_workers": 0,
  "optimizer.learning_rate": 1e-3,
  "dtype.compute": "float32",
  "dtype.frozen": "float32",
  "remat": "none",
}
RECIPES = {"official": {}, "tiny": TINY}


def get_config(arg) -> ConfigDict:
  """Returns the fields of every stage, unlocked.

  Args:
    arg: the stage's switches, from `parse_arg`: `model` and `data` at least.
  """
  config = ConfigDict()

  # Weights to start from: a Hugging Face folder, a run, or "tiny-base", the
  # base that comes with the package. Empty: random weights. A path may be
  # gs://BUCKET/PATH, as may those of adapter, tokenizer and data.
  config.init = ""
  # Adapter folder in the official layout, loaded over `init`.
  config.adapter = ""
  # Tokenizer folder or file, or manifests (JSONL) from whose texts one is
  # trained. Empty: that of `init`; trained from data.train if `init` is empty.
  config.tokenizer = ""
  # Seed of random weights, data order and dropout.
  config.seed = 42

  config.model = model_values(arg.model)

  # Rules (regex, trains or not) over parameter names. The first match wins;
  # every parameter must match one rule, and every rule a parameter.
  config.trainable = []

  config.data = ConfigDict()
  # Manifests (JSONL) to train on, separated by commas.
  config.data.train = arg.data
  # Manifests to evaluate on. Empty: no evaluation.
  config.data.eval = ""
  # Most tokens of an example; a longer one is an error.
  config.data.max_length = 2048
  # Lengths in tokens that a batch is padded to, the smallest that holds it.
  config.data.buckets = (512, 640, 768, 1024, 2048)
  # Numbers of supervised tokens that a batch is padded to, likewise; one for
  # each length, so that they do not multiply the compiled programs.
  config.data.answer_buckets = (32, 128, 512)
  # Numbers of patches that a batch is padded to, for images of several sizes.
  config.data.patch_buckets = ()
  # Tokens of a row that holds as many examples as fit. 0: one example a row.
  config.data.pack_length = 0
  # Examples of one image share a row of up to pack_length tokens, which holds
  # the image once. batch_size counts such rows, and buckets apply to them.
  config.data.pack_by_image = False
  # Batches that are drawn at a time and grouped by length. 1: as drawn.
  config.data.pool_batches = 1
  # Processes that prepare examples. 0: the training process does.
  config.data.num_workers = 8
  # "example" (official): each answer weighs the same. "token": each token.
  config.data.loss_weighting = "example"
  # "aligned", or a control condition of data/anchor_conditions.py.
  config.data.anchors = "aligned"
  # g: anchors are thinned to g x g grid points. 0: as stored.
  config.data.anchor_grid = 0
  # Weight of the auxiliary loss that has visual tokens name what lies in their
  # cells, for rows with boxes; the unit is one answer. 0: off.
  config.data.cell_weight = 0.0
  # Most host memory, in GB, for visual tokens of a frozen vision tower, which
  # are then computed once per image. If more images than fit: in every step.
  config.data.visual_cache_gb = 4.0
  # Augmentation of chips (classification rows of an entire image): in every
  # step an image is shifted by up to this share of its sides, and mirrored in
  # one of two steps, left and right. 0: off.
  config.data.chip_shift = 0.0

  # Examples of one update, on all devices together.
  config.batch_size = 16
  # Micro-batches of one update. Lowered, with a log line, to what divides over
  # the devices; the update is the same.
  config.accumulation = 4
  # Passes over data.train.
  config.epochs = 1
  # Updates. 0: as many as `epochs` takes.
  config.steps = 0

  config.optimizer = ConfigDict()
  # Peak learning rate; it decays linearly to 0.
  config.optimizer.learning_rate = 1e-4
  # Updates of linear warm-up; alternative to warmup_ratio.
  config.optimizer.warmup_steps = 0
  # Linear warm-up as a share of all updates.
  config.optimizer.warmup_ratio = 0.05
  # Decay of AdamW's first moment.
  config.optimizer.b1 = 0.9
  # Decay of AdamW's second moment.
  config.optimizer.b2 = 0.999
  # Epsilon of AdamW.
  config.optimizer.eps = 1e-8
  # Decoupled weight decay of AdamW.
  config.optimizer.weight_decay = 0.0
  # Largest global norm of the gradient.
  config.optimizer.clip_norm = 1.0
  # Rules (regex, factor on the learning rate) over trainable parameters.
  config.optimizer.rates = ((r".*", 1.0),)
  # Keep AdamW's moments in the host's memory.
  config.offload_optimizer = False

  # Devices along the axes data, fsdp, tensor: "2,4,1"; one may be -1. "auto":
  # weights are sharded where they do not fit one device.
  config.mesh = "auto"
  config.dtype = ConfigDict()
  # Dtype of activations: "bfloat16" or "float32".
  config.dtype.compute = "bfloat16"
  # Dtype of frozen weights: "bfloat16", "float32", "int8", "nf4".
  config.dtype.frozen = "bfloat16"
  # What the backward pass recomputes: "full" layers, all but "dots", "none", or
  # all but some projections: "save:gate_proj,up_proj", "offload:gate_proj".
  config.remat = "full"
  # "xla", "blocked", "cudnn", "splash", or "auto": the fastest here.
  config.attention = "auto"
  # Supervised tokens whose logits are in memory at a time.
  config.head_chunk = 256

  # Steps between lines of the log and of metrics.jsonl.
  config.log_every_steps = 10
  # What else shows them: "tensorboard", "wandb", "mlflow", or several of these,
  # separated by commas. Empty: metrics.jsonl alone.
  config.metric_writers = "tensorboard"
  # Steps between evaluations. 0: at the end only.
  config.eval_every_steps = 0
  # Steps between checkpoints.
  config.save_every_steps = 200
  # Checkpoints that are kept, the latest.
  config.keep = 2
  # "eval_loss": the checkpoint of the lowest one is kept besides.
  config.keep_best_by = ""
  # Evaluations without a better one that end the run. 0: never.
  config.patience = 0
  # Batches with a loss that is not finite that may be skipped. 0: the first
  # stops the run.
  config.skip_nonfinite = 0
  # First step of a profiler trace in WORKDIR/profile. 0: none.
  config.profile_at_step = 0
  # Steps of the trace.
  config.profile_steps = 3
  # Folder of compiled programs. Empty: one for all runs of the user,
  # $XDG_CACHE_HOME/fusar_jax/compiled, of 4 GB at most.
  config.compile_cache = ""
  return config


def finish(config: ConfigDict, arg) -> ConfigDict:
  """Returns the config, locked, with the values of `:recipe=`.

  Without the switch, small presets take the recipe `tiny` and say so.

  Raises:
    ValueError: a recipe that is not in RECIPES.
  """
  recipe = arg.recipe or "official"
  if recipe not in RECIPES:
    raise ValueError(
      f"recipe={recipe!r}: expected one of {', '.join(RECIPES)}."
    )
  if not arg.recipe and arg.model in SMALL_PRESETS:
    recipe = "tiny"
    values = ", ".join(f"{key}={value}" for key, value in TINY.items())
    print(f"model={arg.model} implies recipe=tiny: {values}", file=sys.stderr)
  config.update_from_flattened_dict(RECIPES[recipe])
  return config.lock()
