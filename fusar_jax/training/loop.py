"""Training loop: next batch, step, log, evaluate, save, in this order.

The host prepares batch k + 1 while the device computes step k. The loop never
waits for a result of the step that it has just dispatched.
"""

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fusar_jax.data.anchor_conditions import AnchorCondition
from fusar_jax.data.loader import Loader, LoaderConfig
from fusar_jax.model.paths import flatten
from fusar_jax.training import partition, program, setup, sharding
from fusar_jax.training import workdir as workdir_lib
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.compile_cache import compile_cache
from fusar_jax.training.gradient_check import GradientCheck
from fusar_jax.training.logging import MetricsLogger
from fusar_jax.training.profiler import ProfilerWindow
from fusar_jax.training.run_config import resolve
from fusar_jax.training.selection import Selection
from fusar_jax.training.step import make_loss
from fusar_jax.training.stopwatch import Stopwatch


@dataclasses.dataclass(frozen=True)
class Result:
  """Outcome of a run.

  Attributes:
    step: completed steps.
    total_steps: scheduled steps.
    preempted: the run received a stop signal, saved, and can be resumed.
    best_step: step of the checkpoint that config.keep_best_by retains.
  """

  step: int
  total_steps: int
  preempted: bool
  best_step: int | None = None


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> Result:
  """Trains by the config, from the start or from the last checkpoint.

  Args:
    config: a locked config from `configs/*.py`.
    workdir: folder of the run; created, or resumed if it contains a run of
      this config.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: an input is missing or does
      not fit; nothing was written.
    OSError: a checkpoint or the log could not be written; older checkpoints
      are untouched.
    FloatingPointError: the loss is not finite; names step and examples.
  """
  stopwatch = Stopwatch()
  workdir = Path(workdir)
  config = resolve(config)
  window = ProfilerWindow(
    workdir / "profile", config.profile_at_step, config.profile_steps
  )
  run = setup.setup_run(config, workdir)
  try:
    mesh, config = setup.make_mesh(config, run.model)
    loader = _make_loader(run, config, mesh, run.train, train=True)
    total = config.steps or config.epochs * loader.steps_per_epoch
    rate = program.make_rate(config, total)
    tx = program.make_optimizer(config, rate)
    # Bind no name to the unsharded arrays: they would stay in memory.
    state, frozen, shardings = program.create_sharded_state(
      *setup.parameters(run, config, workdir, mesh), config, mesh, tx
    )
  except (OSError, ValueError):
    if not run.resumes:
      workdir_lib.undo(workdir)
    raise
  step_fn = program.jit_train_step(config, run.model, tx, mesh, shardings)
  first = jax.process_index() == 0
  checkpoints = Checkpoints(workdir, config.keep)
  host = {}
  if checkpoints.latest_step() is not None:
    state, host = checkpoints.restore(state)
    loader.set_state(host["loader"])
    stopwatch.resume(host.get("stopwatch", {}))
  elif first:
    _print_parts(state.trainable, frozen)
  step = int(state.step)
  meters = MetricsLogger(
    workdir,
    total_steps=total,
    start_step=step,
    batch_size=config.batch_size,
    every=config.log_every_steps,
    rate=rate,
    compiles=step_fn._cache_size,
    stopwatch=stopwatch,
    may_skip=config.skip_nonfinite,
    writes=first,
    saved=host.get("meters"),
  )
  check = (
    GradientCheck(state.trainable, config.data.anchors) if step == 0 else None
  )
  evaluate = _make_evaluation(run, config, mesh, shardings)
  best = Selection(config.keep_best_by, config.patience, host.get("selection"))
  batches = iter(loader)

  def save():
    meters.drain()  # Never save after a non-finite loss.
    with stopwatch.losing("save"):
      host = {
        "loader": loader.get_state(),
        "meters": meters.state(),
        "selection": best.state(),
        "stopwatch": stopwatch.state(),
      }
      checkpoints.save(state, host, best.best_step)

  with contextlib.ExitStack() as stack:
    stack.callback(checkpoints.close)
    stack.callback(meters.close)
    stack.callback(window.close)
    folder = Path(config.compile_cache or workdir / "compiled")
    stack.enter_context(compile_cache(folder))
    stopped = stack.enter_context(_preemption())
    stopwatch.started()
    while step < total and not best.exhausted and not stopped(step):
      # Next batch.
      with stopwatch.losing("data"):
        batch, ids = next(batches)
      # Step.
      window.before(step + 1)
      with stopwatch.compiling(step_fn._cache_size):
        placed = sharding.put_batch(batch, mesh)
        state, metrics = step_fn(state, frozen, placed)
      step += 1
      window.after(step, metrics)
      nonzero = metrics.pop("nonzero")
      if check and check.passes(jax.device_get(nonzero), batch):
        check = None
      # Log.
      meters.add(step, metrics, ids)
      # Evaluate.
      improved = False
      if evaluate and (
        step == total
        or (config.eval_every_steps and step % config.eval_every_steps == 0)
      ):
        meters.drain()
        with stopwatch.losing("evaluate"):
          values = evaluate(state.trainable, frozen)
        improved = best.improves(step, values)
        meters.evaluated(step, values)
      # Save.
      checkpoints.check()
      if step == total or step % config.save_every_steps == 0 or improved:
        save()
    preempted = step < total and not best.exhausted
    if step < total:
      save()
    meters.drain()
    with stopwatch.losing("save"):
      checkpoints.wait()
  if first:
    print(*filter(None, (best.line(), stopwatch.line())), sep="\n", flush=True)
  return Result(step, total, preempted, best.best_step)


def _make_loader(run, config, mesh, triplets, *, train: bool) -> Loader:
  data = config.data
  parts = config.accumulation if train else 1
  return Loader(
    triplets,
    run.tokenizer,
    run.model,
    LoaderConfig(
      batch_size=config.batch_size,
      seed=config.seed,
      shuffle=train,
      epochs=None if train else 1,
      max_length=data.max_length,
      buckets=data.buckets,
      answer_buckets=data.answer_buckets,
      patch_buckets=data.patch_buckets,
      pack_length=data.pack_length,
      row_multiple=sharding.row_unit(parts, mesh, jax.process_count()),
      loss_weighting=data.loss_weighting,
      cell_weight=data.cell_weight if train else 0.0,
      anchors=AnchorCondition(data.anchors, data.anchor_grid),
      num_workers=data.num_workers if train else 0,
      pool_batches=data.pool_batches if train else 1,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ),
  )


def _make_evaluation(run, config, mesh, shardings):
  """Returns evaluate(trainable, frozen) -> {"eval_loss": ...}, or None."""
  if not run.evaluation:
    return None
  options = dataclasses.replace(
    program.step_options(config, run.model, mesh),
    dropout=False,
    accumulation=1,
  )
  loss = jax.jit(
    make_loss(run.model, options),
    in_shardings=(
      shardings[0].trainable,
      shardings[1],
      sharding.batch_sharding(mesh),
      None,
    ),
  )

  def evaluate(trainable, frozen) -> dict[str, float]:
    total = weight = 0.0
    key = jax.random.key(0)  # Unused: evaluation has no dropout.
    for batch, _ in _make_loader(
      run, config, mesh, run.evaluation, train=False
    ):
      batch = sharding.put_batch(batch, mesh)
      total += float(loss(trainable, frozen, batch, key))
      weight += float(jnp.sum(batch.answer_weight))
    return {"eval_loss": total / weight}

  return evaluate


@contextlib.contextmanager
def _preemption() -> Iterator[Callable[[int], bool]]:
  """Yields stopped(step): whether a preemption signal has arrived.

  On a pod all processes must stop at the same step: JAX's coordination service
  receives the signal of any process and agrees on one step.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  heard = []
  before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
  try:
    yield lambda step: bool(heard)
  finally:
    signal.signal(signal.SIGTERM, before)


def _print_parts(trainable: partition.Params, frozen: partition.Params) -> None:
  """Prints a table of the model's parts, total and trainable counts."""
  counts: dict[str, list[int]] = {}
  for tree, trains in ((trainable, True), (frozen, False)):
    for path, leaf in flatten(tree).items():
      part = _part(path)
      row = counts.setdefault(part, [0, 0])
      row[0] += math.prod(leaf.shape)
      row[1] += math.prod(leaf.shape) * trains
  counts["all"] = [sum(column) for column in zip(*counts.values())]
  table = Table("part", "parameters", "trainable")
  for column in table.columns[1:]:
    column.justify = "right"
  for part, (total, trains) in counts.items():
    table.add_row(part, f"{total:,}", f"{trains:,}")
  Console().print(table)


def _part(path: str) -> str:
  if path.endswith(("/lora_a", "/lora_b")):
    return "LoRA, vision" if path.startswith("visual") else "LoRA, language"
  names = {
    "visual": "vision tower",
    "tlm": "TLM",
    "model": "decoder",
    "lm_head": "head",
  }
  if path.startswith("visual/merger"):
    return "patch merger"
  if path.startswith("model/embed_tokens"):
    return "embedding"
  return names[path.split("/")[0]]
