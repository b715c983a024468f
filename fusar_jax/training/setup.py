"""Run setup: model, tokenizer, data, parameters and mesh.

Setup reports config errors before it writes a file. A workdir that contains
the same run is resumed; a workdir with any other content is rejected.
"""

import dataclasses
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from fusar_jax.data import tokenizer as tokenizer_lib
from fusar_jax.data.data_hashes import describe_data
from fusar_jax.data.triplets import Triplet, read_manifests, require_answers
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import abstract_params
from fusar_jax.training import (
  bucket_workdir,
  continuation,
  device_mesh,
  frozen_weights,
  partition,
  provenance,
  shapes,
)
from fusar_jax.training import parameters as parameters_lib
from fusar_jax.training import workdir as workdir_lib
from fusar_jax.training.provenance import Source
from fusar_jax.training.run_config import RunConfig


@dataclasses.dataclass(frozen=True)
class RunSetup:
  """Inputs of a run.

  Attributes:
    model: config with resolved shapes.
    base, adapter: sources of the weights.
    tokenizer: tokenizer of the run.
    train, evaluation: triplets; `evaluation` may be empty.
    resumes: whether the workdir already contains this run.
  """

  model: FusarConfig
  base: Source
  adapter: Source
  tokenizer: tokenizer_lib.Tokenizer
  train: list[Triplet]
  evaluation: list[Triplet]
  resumes: bool


def setup_run(config: RunConfig, workdir: Path) -> RunSetup:
  """Reads all inputs, then writes config.json, provenance.json, tokenizer/.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: an input is missing, the
      workdir is not this run's, or inputs do not fit together.
  """
  resumes = workdir_lib.resumes(config, workdir)
  if not config.data.train:
    raise ValueError("config.data.train is empty; name a manifest.")
  train = read_manifests(config.data.train)
  evaluation = read_manifests(config.data.eval) if config.data.eval else []
  require_answers([*train, *evaluation])
  data = describe_data(
    {"train": config.data.train, "eval": config.data.eval},
    [*train, *evaluation],
  )
  if resumes:
    base, adapter = workdir_lib.recorded(workdir, data)
  else:
    base = provenance.describe(config.init, workdir)
    adapter = provenance.describe(config.adapter, workdir)
    if adapter.kind == "run":
      raise ValueError(
        f"config.adapter {config.adapter} is a run; give it as config.init."
      )
  model = shapes.resolve_model(config.model, base, workdir)
  model = continuation.continued(model, base, adapter, config, workdir)
  _check_trainable(config, base, model, train)
  if not resumes:
    tokenizer = _ready_tokenizer(config, base, model, workdir)
    texts = train
    if _names_manifests(config.tokenizer):
      texts = read_manifests(config.tokenizer)
    # A process that checks the folder later would see another run's files.
    multihost_utils.sync_global_devices("all have seen the empty folder")
    if jax.process_index() == 0:
      records = (base, adapter, data)
      workdir_lib.write(config, workdir, model, tokenizer, texts, records)
  multihost_utils.sync_global_devices("the run's folder is written")
  bucket_workdir.pull(workdir)
  tokenizer = tokenizer_lib.load_tokenizer(workdir / workdir_lib.TOKENIZER)
  return RunSetup(model, base, adapter, tokenizer, train, evaluation, resumes)


def parameters(
  run: RunSetup, config: RunConfig, workdir: Path, mesh: jax.sharding.Mesh
) -> tuple[partition.Params, partition.Params]:
  """Returns (float32 trainables, frozen in config.dtype.frozen).

  Raises:
    ValueError: weights do not fit the model, or rules do not fit the
      parameters.
  """
  whole = parameters_lib.initial_params(
    run.model,
    run.base,
    run.adapter,
    workdir,
    seed=config.seed,
    dtype=frozen_weights.read_dtype(config.dtype),
    placement=frozen_weights.read_placement(config.dtype, mesh),
  )
  trainable, frozen = partition.partition(whole, config.trainable)
  trainable = jax.tree.map(lambda leaf: leaf.astype("float32"), trainable)
  return trainable, frozen_weights.cast_frozen(frozen, config.dtype)


def make_mesh(
  config: RunConfig, model: FusarConfig
) -> tuple[jax.sharding.Mesh, RunConfig]:
  """Returns (mesh, config with accumulation adjusted to the mesh).

  Raises:
    ValueError: sizes do not fit the devices or the batch.
  """
  memory = jax.local_devices()[0].memory_stats() or {}
  sizes, accumulation = device_mesh.layout(
    config,
    model,
    jax.device_count(),
    memory.get("bytes_limit"),
    jax.process_count(),
    device_mesh.num_slices(jax.devices()),
  )
  first = jax.process_index() == 0
  if first and config.mesh == device_mesh.AUTO and jax.device_count() > 1:
    chosen = ", ".join(f"{a} {n}" for a, n in zip(device_mesh.AXES, sizes))
    print(f"mesh auto: {chosen}", flush=True)
  if first and accumulation != config.accumulation:
    rows = config.batch_size // accumulation
    print(
      f"accumulation {config.accumulation} -> {accumulation}: micro-batches of"
      f" {rows} rows divide over {sizes[0] * sizes[1]} devices; an update stays"
      f" that of {config.batch_size} rows",
      flush=True,
    )
  config = dataclasses.replace(config, accumulation=accumulation)
  return device_mesh.make_mesh(*sizes), config


def _check_trainable(config, base, model, train) -> None:
  if base.kind == "random" and any(not on for _, on in config.trainable):
    raise ValueError(
      "config.init is empty, but config.trainable freezes parameters: they"
      " would stay random. Name a Hugging Face folder or a run."
    )
  unlabelled = [
    row.where for row in train if row.extra.get("labelled") is False
  ]
  if unlabelled:
    raise ValueError(
      f"{len(unlabelled)} rows of config.data.train have no answer (prepared"
      f" without labels; the first: {unlabelled[0]}) and would teach the model"
      " to say nothing. They are for predict; to train, prepare with --labels."
    )
  shapes = abstract_params(model)
  trainable, _ = partition.partition(shapes, config.trainable)
  anchored = any(path for row in train for path in row.anchors)
  # Without anchors by design, the TLM keeps its initial values.
  if "tlm" in trainable and not anchored and config.data.anchors != "none":
    raise ValueError(
      f"{config.data.train}: no row has anchors, so the TLM would get no"
      ' gradient. Add "aef" to the rows, or freeze it in config.trainable.'
    )


def _names_manifests(tokenizer: str) -> bool:
  return tokenizer.endswith(".jsonl")


def _ready_tokenizer(config, base, model, workdir):
  """Returns the tokenizer of the config or the base; None: train one."""
  path = config.tokenizer
  if _names_manifests(path) or (not path and base.kind == "random"):
    return None
  if not path:
    path = provenance.locate(base, workdir)
    path = path / workdir_lib.TOKENIZER if base.kind == "run" else path
  tokenizer = tokenizer_lib.load_tokenizer(path)
  fix = "set config.tokenizer to the model's own"
  tokenizer.check_fits(path, model, fix)
  return tokenizer
