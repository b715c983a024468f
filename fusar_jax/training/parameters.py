"""Full parameters of a run: its base, recursively, plus its checkpoint.

A run stores only what it trained and refers to the rest, see `provenance`.
Parameters that neither base nor adapter has (new LoRA and TLM) are initialised
from the seed.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from fusar_jax.hf import coverage
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.load import load_base
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import abstract_params, init_params
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import continuation, partition, provenance
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.provenance import Source


def load_run(
  workdir: str | os.PathLike,
  step: int | None = None,
  *,
  dtype: str | None = None,
  placement: Callable | None = None,
) -> tuple[FusarConfig, partition.Params, Path, dict[str, Any]]:
  """Loads the full model of a run: its base, recursively, plus a checkpoint.

  Args:
    workdir: the run.
    step: step of the checkpoint; default: the newest intact one.
    dtype: dtype of frozen parameters; None: that of the file.
    placement: (path, shape) -> sharding of weights from a Hugging Face folder;
      None: the default device.

  Returns:
    (config, parameters as nested dict of arrays, tokenizer's folder,
    {"step", "workdir", "base": Source}).

  Raises:
    FileNotFoundError: no run, no checkpoint, or the base is missing.
    ValueError: a file of the run is damaged, the base has changed, or
      parameters do not fit.
  """
  workdir = Path(workdir)
  if not provenance.is_run(workdir):
    raise FileNotFoundError(
      f"{workdir}: not a run ({provenance.PROVENANCE_FILE} not found)."
    )
  record = provenance.read(workdir)
  provenance.base_folder(workdir)  # Raises for bases that form a cycle.
  config = provenance.read_model_config(workdir)
  seed = provenance.read_settings(workdir)["seed"]
  with Checkpoints(workdir, reads_only=True) as checkpoints:
    step = checkpoints.newest_intact() if step is None else step
    trained = checkpoints.restore_trainable(step)
  base, adapter = provenance.sources_of(record, workdir)
  frozen = initial_params(
    config,
    base,
    adapter,
    workdir,
    seed=seed,
    without=set(flatten(trained)),
    dtype=dtype,
    placement=placement,
  )
  info = {"step": step, "workdir": str(workdir), "base": base}
  params = partition.merge(trained, frozen)
  return config, params, workdir / "tokenizer", info


def source_config(source: Source, workdir: Path) -> FusarConfig | None:
  """Returns the config of a base, None for random."""
  if source.kind == "random":
    return None
  return read_shapes(provenance.locate(source, workdir))


def read_shapes(folder: Path) -> FusarConfig:
  """Returns the config of a run or a Hugging Face folder; reads no weights.

  Raises:
    FileNotFoundError, ValueError: as `read_config`.
  """
  if not provenance.is_run(folder):
    return read_config(folder)
  return provenance.read_model_config(folder)


def initial_params(
  config: FusarConfig,
  base: Source,
  adapter: Source,
  workdir: Path,
  *,
  seed: int,
  without: frozenset[str] | set[str] = frozenset(),
  dtype: str | None = None,
  placement: Callable | None = None,
) -> partition.Params:
  """Returns the parameters that a run starts from.

  Parameters of the base, overridden by those of the adapter. LoRA and TLM that
  neither has are initialised from the seed, with the distributions of PEFT and
  torch. Only a random base may lack other parameters. A run without TLM drops
  the TLM of its sources.

  Args:
    config: config of the model.
    base, adapter: see `Source`.
    workdir: folder of the run, to resolve relative sources.
    seed: seed of new parameters.
    without: paths to omit (a checkpoint has them).
    dtype, placement: see `load_run`.

  Raises:
    ValueError: parameters of the base are missing or unexpected, or LoRA or
      TLM of the adapter differ from the config.
  """
  flat = {}
  if base.kind == "folder":
    folder = provenance.locate(base, workdir)
    _, params = load_base(folder, dtype, placement)
    flat = flatten(params)
  elif base.kind == "run":
    folder = provenance.locate(base, workdir)
    _, params, _, _ = load_run(
      folder, base.step, dtype=dtype, placement=placement
    )
    flat = flatten(params)
  if adapter.kind == "folder":
    folder = provenance.locate(adapter, workdir)
    flat |= flatten(continuation.read_adapter_leaves(folder, config))
  if config.tlm is None:
    flat = {p: leaf for p, leaf in flat.items() if not p.startswith("tlm/")}
  return complete(flat, config, seed, base, without)


def complete(
  flat: dict[str, Any],
  config: FusarConfig,
  seed: int,
  base: Source,
  without: frozenset[str] | set[str] = frozenset(),
) -> partition.Params:
  """Adds new parameters; checks names and shapes against the config."""
  key = jax.random.key(seed)
  shapes = flatten(abstract_params(config))
  missing = sorted(set(shapes) - set(flat) - set(without))
  lost = [p for p in missing if not is_fresh(p) and base.kind != "random"]
  expected = coverage.shapes(
    {p: leaf for p, leaf in shapes.items() if p in flat or p in lost}
  )
  differences = coverage.Differences.between(expected, coverage.shapes(flat))
  if differences:
    raise ValueError(
      f"{base.path or 'parameters'}: do not fit config.model"
      f" ({len(differences)} arrays):\n{differences}"
    )
  kept = {p: leaf for p, leaf in flat.items() if p not in without}
  if missing:
    # XLA computes only the missing leaves of the tree.
    draw = jax.jit(
      lambda key: {
        path: leaf
        for path, leaf in flatten(init_params(config, key)).items()
        if path in missing
      }
    )
    kept |= draw(key)
  return unflatten(kept)


def is_fresh(path: str) -> bool:
  """True for parameters that a plain Qwen2.5-VL does not have."""
  return path.startswith("tlm/") or path.endswith(("/lora_a", "/lora_b"))
