"""Training loop: next batch, step, log, evaluate, save, in this order.

The host prepares batch k + 1 while the device computes step k. The loop never
waits for a result of the step that it has just dispatched.
"""

import contextlib
import dataclasses
from pathlib import Path

import jax
from ml_collections import ConfigDict

from fusar_jax.training import bucket_workdir, program, setup, visual_cache
from fusar_jax.training import workdir as workdir_lib
from fusar_jax.training.batches import make_loader
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.compile_cache import compile_cache
from fusar_jax.training.distributed import preemption
from fusar_jax.training.evaluation import make_evaluation
from fusar_jax.training.gradient_check import GradientCheck
from fusar_jax.training.logging import MetricsLogger
from fusar_jax.training.metric_writers import make_writers
from fusar_jax.training.optimizer import linear_schedule
from fusar_jax.training.parameter_table import print_parameter_table
from fusar_jax.training.profiler import ProfilerWindow
from fusar_jax.training.run_config import RunConfig, resolve
from fusar_jax.training.selection import Selection
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
    workdir: folder of the run, or gs://BUCKET/PATH; created, or resumed if it
      contains a run of this config.

  Raises:
    FileNotFoundError, FileExistsError, ValueError: an input is missing or does
      not fit; nothing was written.
    OSError: a checkpoint or the log could not be written; older checkpoints
      are intact. Or another process trains in `workdir`.
    FloatingPointError: the loss is not finite; names step and examples.
  """
  resolved, stopwatch = resolve(config), Stopwatch()
  with (
    compile_cache(resolved.compile_cache),
    bucket_workdir.opened(workdir) as folder,
  ):
    return _train(resolved, folder, stopwatch)


def _train(config: RunConfig, workdir: Path, stopwatch: Stopwatch) -> Result:
  window = ProfilerWindow(
    workdir / "profile", config.profile_at_step, config.profile_steps
  )
  writers = make_writers(config, workdir)
  run = setup.setup_run(config, workdir)
  try:
    mesh, config = setup.make_mesh(config, run.model)
    loader = make_loader(run, config, mesh, run.train, train=True)
    total = config.steps or config.epochs * loader.steps_per_epoch
    schedule = program.make_schedule(config, total)
    tx = program.make_optimizer(config, schedule)
    # No name for the unsharded arrays: they would stay in memory.
    state, frozen, shardings = program.create_sharded_state(
      *setup.parameters(run, config, workdir, mesh), config, mesh, tx
    )
  except (OSError, ValueError):
    if not run.resumes:
      workdir_lib.undo(workdir)
    raise
  step_fn = program.jit_train_step(config, run.model, mesh, shardings)
  inputs, encoders = visual_cache.make_inputs(
    config, run.model, mesh, state.trainable, run.train, loader, total
  )

  def programs() -> int:
    return step_fn._cache_size() + encoders()

  first = jax.process_index() == 0
  checkpoints = Checkpoints(workdir, config.keep)
  host = {}
  if checkpoints.latest_step() is not None:
    state, host = checkpoints.restore(state)
    loader.set_state(host["loader"])
    stopwatch.resume(host.get("stopwatch", {}))
  elif first:
    print_parameter_table(state.trainable, frozen)
  step = int(state.step)
  logger = MetricsLogger(
    workdir,
    total_steps=total,
    start_step=step,
    batch_size=config.batch_size,
    every=config.log_every_steps,
    rate=linear_schedule(*schedule),
    compiles=programs,
    stopwatch=stopwatch,
    may_skip=config.skip_nonfinite,
    writers=writers,
    saved=host.get("meters"),
  )
  check = (
    GradientCheck(state.trainable, config.data.anchors) if step == 0 else None
  )
  evaluate = make_evaluation(run, config, mesh, shardings)
  best = Selection(config.keep_best_by, config.patience, host.get("selection"))
  batches = iter(loader)

  def save():
    logger.drain()  # Never save after a non-finite loss.
    with stopwatch.losing("save"):
      host = {
        "loader": loader.get_state(),
        "meters": logger.state(),
        "selection": best.state(),
        "stopwatch": stopwatch.state(),
      }
      checkpoints.save(state, host, best.best_step)

  with contextlib.ExitStack() as stack:
    stack.callback(checkpoints.close)
    stack.enter_context(logger)
    stack.callback(window.close)
    stopped = stack.enter_context(preemption())
    stopwatch.started()
    while step < total and not best.exhausted and not stopped(step):
      # Next batch.
      with stopwatch.losing("data"):
        batch, ids = next(batches)
      # Step.
      logger.starts(batch)
      window.before(step + 1)
      with stopwatch.compiling(programs):
        state, metrics = step_fn(state, frozen, inputs(batch, frozen), schedule)
      step += 1
      window.after(step, metrics)
      nonzero = metrics.pop("nonzero")
      if check and check.passes(jax.device_get(nonzero), batch):
        check = None
      # Log.
      logger.add(step, metrics, ids)
      # Evaluate.
      improved = False
      if evaluate and (
        step == total
        or (config.eval_every_steps and step % config.eval_every_steps == 0)
      ):
        logger.drain()
        with stopwatch.losing("evaluate"):
          values = evaluate(state.trainable, frozen)
        improved = best.improves(step, values)
        logger.evaluated(step, values)
      # Save.
      checkpoints.check()
      if step == total or step % config.save_every_steps == 0 or improved:
        save()
    preempted = step < total and not best.exhausted
    if step < total:
      save()
    logger.drain()
    with stopwatch.losing("save"):
      checkpoints.wait()
  if first:
    print(*filter(None, (best.line(), stopwatch.line())), sep="\n", flush=True)
  return Result(step, total, preempted, best.best_step)
