"""Checkpoints of a run (Orbax), and a run's full parameters from its lineage.

A checkpoint holds what training changes and nothing else, in three items:
  trainable  nested dict of parameters
  optimizer  step, random key and optimizer state, flat by name
  host       JSON: data iterator, meters
Orbax restores partially without a word where names differ, so names, shapes
and dtypes are compared before anything is read.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from fusar_jax import config as config_lib
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.load import load_base
from fusar_jax.hf.peft import read_adapter
from fusar_jax.model.config import FusarConfig, LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import partition, provenance
from fusar_jax.training.provenance import Source
from fusar_jax.training.state import TrainState

_ITEMS = ("trainable", "optimizer")


class Checkpoints:
  """The checkpoints of one run: asynchronous, the last `keep` are kept.

  Args:
    workdir: the run; checkpoints lie in `workdir/checkpoints/STEP/`.
    keep: how many are kept; 0 keeps all.
  """

  def __init__(self, workdir: Path | str, keep: int = 0):
    folder = Path(workdir).absolute() / "checkpoints"
    self._manager = ocp.CheckpointManager(
      folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep or None,
        # What a killed run left half-written.
        cleanup_tmp_directories=True,
      ),
      item_handlers={
        "trainable": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        "host": ocp.JsonCheckpointHandler(),
      },
    )
    self._folder = folder

  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def save(self, state: TrainState, host: dict[str, Any]) -> None:
    """Starts to write; returns when the arrays are copied to the host.

    Args:
      state: its step names the checkpoint; a step saved already is skipped.
      host: JSON values.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        trainable=ocp.args.StandardSave(state.trainable),
        optimizer=ocp.args.StandardSave(_flat_rest(state)),
        host=ocp.args.JsonSave(host),
      ),
    )

  def restore(
    self, like: TrainState, step: int | None = None
  ) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and the JSON values of a checkpoint, bit by bit.

    Args:
      like: a state, or its ShapeDtypeStructs with shardings: the structure
        expected and where arrays are put. The mesh may differ from the one
        that saved.
      step: default the newest.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: a checkpoint of another model.
    """
    step = self._find(step)
    wanted = {"trainable": like.trainable, "optimizer": _flat_rest(like)}
    self._check(step, wanted)
    restored = self._manager.restore(
      step,
      args=ocp.args.Composite(
        host=ocp.args.JsonRestore(),
        **{
          name: ocp.args.StandardRestore(jax.tree.map(_abstract, tree))
          for name, tree in wanted.items()
        },
      ),
    )
    leaves, structure = jax.tree.flatten(like.replace(trainable=None))
    names = list(_flat_rest(like))
    assert len(names) == len(leaves)
    rest = jax.tree.unflatten(structure, [restored.optimizer[n] for n in names])
    return rest.replace(trainable=restored.trainable), restored.host

  def restore_trainable(self, step: int | None = None) -> partition.Params:
    """Returns the trained parameters alone, as numpy arrays."""
    step = self._find(step)
    saved = self._manager.item_metadata(step)["trainable"].tree
    like = jax.tree.map(
      lambda leaf: np.empty(leaf.shape, leaf.dtype), saved, is_leaf=_is_array
    )
    return self._manager.restore(
      step, args=ocp.args.Composite(trainable=ocp.args.StandardRestore(like))
    ).trainable

  def wait(self) -> None:
    """Returns when everything is on disk; raises what a write has raised."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def _find(self, step: int | None) -> int:
    steps = self._manager.all_steps()
    if not steps or (step is not None and step not in steps):
      raise FileNotFoundError(
        f"{self._folder}: no checkpoint of step {step or 'any'}; there are"
        f" {sorted(steps)}."
      )
    return max(steps) if step is None else step

  def _check(self, step: int, wanted: dict[str, Any]) -> None:
    saved = self._manager.item_metadata(step)
    problems = []
    for item in _ITEMS:
      ours = _shapes(flatten(wanted[item]))
      theirs = _shapes(flatten(saved[item].tree))
      for name in sorted(ours | theirs):
        if ours.get(name) == theirs.get(name):
          continue
        if name not in theirs:
          problems.append(f"  - missing     {name} {ours[name]}")
        elif name not in ours:
          problems.append(f"  + unexpected  {name} {theirs[name]}")
        else:
          problems.append(
            f"  ! differs     {name} {theirs[name]}, expected {ours[name]}"
          )
    if problems:
      shown = problems[:20]
      more = len(problems) - len(shown)
      raise ValueError(
        f"{self._folder / str(step)}: a checkpoint of another model"
        f" ({len(problems)} arrays differ):\n"
        + "\n".join(shown)
        + (f"\n  and {more} more" if more else "")
        + "\nUse the config that wrote it, or another --workdir."
      )


def load_run(
  workdir: Path | str,
  step: int | None = None,
  *,
  dtype: str | None = None,
  placement: Callable | None = None,
) -> tuple[FusarConfig, partition.Params, Path, dict[str, Any]]:
  """Rebuilds a run's whole model: its base, recursively, and what it trained.

  Args:
    workdir: the run.
    step: of the checkpoint; default the newest.
    dtype: of parameters that the run kept frozen; None keeps the file's.
    placement: (path, shape) -> sharding of what is read from a Hugging Face
      folder; None: the default device.

  Returns:
    (config, parameters as nested dict of arrays, tokenizer's folder,
    {"step", "workdir", "base": Source}).

  Raises:
    FileNotFoundError: no run, no checkpoint, or a base that is gone.
    ValueError: a base that has changed, or parameters that do not fit.
  """
  workdir = Path(workdir)
  if not provenance.is_run(workdir):
    raise FileNotFoundError(
      f"{workdir}: not a run ({provenance.PROVENANCE_FILE} not found)."
    )
  written = provenance.read_json(workdir / provenance.CONFIG_FILE)
  record = provenance.read_json(workdir / provenance.PROVENANCE_FILE)
  config = config_lib.from_dict(written["model"])
  checkpoints = Checkpoints(workdir)
  try:
    trained = checkpoints.restore_trainable(step)
    step = checkpoints.latest_step() if step is None else step
  finally:
    checkpoints.close()
  base, adapter = Source(**record["base"]), Source(**record["adapter"])
  frozen = initial_params(
    config,
    base,
    adapter,
    workdir,
    seed=written["config"]["seed"],
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
  folder = provenance.locate(source, workdir)
  if source.kind == "folder":
    return read_config(folder)
  written = provenance.read_json(folder / provenance.CONFIG_FILE)
  return config_lib.from_dict(written["model"])


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

  Those of the base, over them those of the adapter; LoRA and TLM that neither
  has are drawn from the seed as PEFT and torch draw them. Only a random base
  may lack more.

  Args:
    config: of the run.
    base, adapter: see `Source`.
    workdir: the run, from which relative sources are found.
    seed: of the fresh parameters.
    without: paths that are not needed (a checkpoint has them).
    dtype, placement: see `load_run`.

  Raises:
    ValueError: the base lacks a parameter or has one too many; an adapter
      whose LoRA or TLM is not the config's.
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
    flat |= flatten(_read_adapter(folder, config))
  return complete(flat, config, seed, base, without)


def _read_adapter(folder: Path, config: FusarConfig) -> partition.Params:
  sigma = config.tlm.sigma if config.tlm else None
  plain = dataclasses.replace(config, lora=LoRAConfig())
  try:
    found, leaves = read_adapter(folder, plain)
  except ValueError as error:
    # Folders older than tlm_config.json do not say their sigma.
    if "legacy_sigma" not in str(error):
      raise
    found, leaves = read_adapter(folder, plain, legacy_sigma=sigma)
  expected = config_lib.to_dict(config)
  theirs = config_lib.to_dict(found)
  problems = [
    f"  config.model.{part}.{name} is {expected[part][name]}, the adapter has"
    f" {value}"
    for part in ("lora", "tlm")
    for name, value in (theirs[part] or {}).items()
    # Dropout is a choice of each stage.
    if name != "dropout" and (expected[part] or {}).get(name) != value
  ]
  if problems:
    raise ValueError(
      f"{folder}: the adapter does not fit the model:\n"
      + "\n".join(problems)
      + "\nSet these fields to the adapter's values."
    )
  return leaves


def complete(
  flat: dict[str, Any],
  config: FusarConfig,
  seed: int,
  base: Source,
  without: frozenset[str] | set[str] = frozenset(),
) -> partition.Params:
  """Adds fresh parameters; checks names and shapes against the config."""
  key = jax.random.key(seed)
  shapes = flatten(jax.eval_shape(lambda: init_params(config, key)))
  missing = sorted(set(shapes) - set(flat) - set(without))
  lost = [p for p in missing if not is_fresh(p) and base.kind != "random"]
  problems = [f"  - missing     {p} {list(shapes[p].shape)}" for p in lost]
  problems += [
    f"  + unexpected  {p} {list(leaf.shape)}"
    for p, leaf in flat.items()
    if p not in shapes
  ]
  problems += [
    f"  ! differs     {p} {list(leaf.shape)}, expected {list(shapes[p].shape)}"
    for p, leaf in flat.items()
    if p in shapes and leaf.shape != shapes[p].shape
  ]
  if problems:
    raise ValueError(
      f"{base.path or 'parameters'}: do not fit config.model"
      f" ({len(problems)} arrays):\n" + "\n".join(problems[:20])
    )
  kept = {p: leaf for p, leaf in flat.items() if p not in without}
  if missing:
    # Of the whole tree only what is missing is ever computed.
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


def _flat_rest(state: TrainState) -> dict[str, Any]:
  """{"opt_state.0.mu.tlm.mlp_0.bias": leaf}: all of a state but trainables."""
  leaves = jax.tree_util.tree_leaves_with_path(state.replace(trainable=None))
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in leaves
  }


def _abstract(leaf):
  sharding = getattr(leaf, "sharding", None)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shapes(flat: dict[str, Any]) -> dict[str, str]:
  return {
    name: f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
    for name, leaf in flat.items()
  }


def _is_array(leaf) -> bool:
  return hasattr(leaf, "shape")
