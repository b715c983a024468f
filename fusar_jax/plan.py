"""Memory and speed on a TPU slice: `python -m fusar_jax.plan --config FILE.py`.

Compiles the train step of a config for a TPU slice without TPU hardware. Prints
memory, FLOPs and collectives per chip, and the roofline bound on the speed:
  python -m fusar_jax.plan --config configs/stage2.py --topology v5e-16 \\
      --mesh auto --samples-per-chip 4

Exit code 1 if the step does not fit. `--config.FIELD=VALUE` overrides a field,
as for `train`. Needs libtpu (`pip install 'fusar-jax[plan]'`), but no TPU.
"""

import os
import sys

# Set before JAX initialises its backends: planning needs no accelerator.
os.environ["JAX_PLATFORMS"] = "cpu"
# Programs compiled for TPUs can be cached, but not read back without a TPU.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

from absl import app, flags, logging

from fusar_jax import command_line

_CONFIG = command_line.define_config()
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "TPU slice: v5e-16, v5p-64, ..., or v5e:4x4."
)
_MESH = flags.DEFINE_string(
  "mesh", None, "auto or DATA,FSDP,TENSOR (default: config.mesh)."
)
_SAMPLES = flags.DEFINE_integer(
  "samples_per_chip",
  None,
  "Samples per chip and micro-batch (default: from config.batch_size).",
)
_LENGTH = flags.DEFINE_integer(
  "length", None, "Tokens per sample (default: the smallest data.buckets)."
)
_ANSWERS = flags.DEFINE_integer(
  "answers",
  None,
  "Target positions per sample (default: the smallest data.answer_buckets).",
)
_ANCHORS = flags.DEFINE_integer("anchors", 100, "Anchors per image.")
_NEW_TOKENS = flags.DEFINE_integer(
  "new_tokens", 256, "Tokens to generate per answer."
)
_SEARCH = flags.DEFINE_bool(
  "search", False, "Search for the fastest mesh, batch and remat policy."
)
_TRIES = flags.DEFINE_integer(
  "tries", 12, "Maximum number of programs that --search compiles."
)


def main(argv: list[str]) -> None:
  del argv
  logging.set_verbosity(logging.ERROR)
  try:
    fits = run()
  except (OSError, ValueError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
  sys.exit(0 if fits else 1)


def run() -> bool:
  """Prints the plan that the flags select; returns True if it fits."""
  # Slow imports: flag errors and --help must not wait for JAX.
  from rich.console import Console

  from fusar_jax.planning import report
  from fusar_jax.planning.chips import find_slice
  from fusar_jax.planning.compile_hlo import DoesNotFitError
  from fusar_jax.planning.plan import Planner, Shape
  from fusar_jax.training.run_config import resolve
  from fusar_jax.training.setup import with_shapes
  from fusar_jax.training.sharding import read_mesh

  config = with_shapes(resolve(_CONFIG.value))
  where = find_slice(_TOPOLOGY.value)
  shape = Shape(
    _LENGTH.value or config.data.buckets[0],
    _ANSWERS.value or config.data.answer_buckets[0],
    _ANCHORS.value,
  )
  mesh = read_mesh(config.mesh if _MESH.value is None else _MESH.value)
  console = Console()
  console.print(
    f"{where.name}: {where.chips} chips {where.topology};"
    f" {shape.length} tokens a sample, {shape.answers} target positions",
    highlight=False,
  )
  planner = Planner(config, where, shape)
  if _SEARCH.value:
    return _search(planner, console, where)
  choice, accumulation = planner.choice(mesh, _SAMPLES.value)
  console.print(
    f"train {choice.flags(where.chips, accumulation)}", soft_wrap=True
  )
  try:
    plan = planner.step(choice, accumulation)
  except DoesNotFitError as error:
    print(report.does_not_fit(error, where, planner.knobs(choice)))
    return False
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  try:
    answering = planner.decoding(choice, _NEW_TOKENS.value)
  except DoesNotFitError as error:
    print("Generation: " + report.does_not_fit(error, where, []))
    return True  # The train step fits.
  console.print(report.plan_of_decoding(answering.memory, answering.prediction))
  return True


def _search(planner, console, where) -> bool:
  from fusar_jax.planning import report
  from fusar_jax.planning.compile_hlo import DoesNotFitError

  def measured(choice, result):
    if isinstance(result, DoesNotFitError):
      told = f"does not fit ({result.used / 2**30:.1f} GiB)"
    else:
      p = result.prediction
      told = f"{p.samples_per_second:.1f} samples/s, bound by {p.bound}"
    data, fsdp, tensor = choice.mesh
    console.print(
      f"mesh {data},{fsdp},{tensor}  samples {choice.samples}  remat"
      f" {choice.remat}: {told}",
      highlight=False,
    )

  plan, proven = planner.search(_TRIES.value, measured)
  if plan is None:
    print(f"Nothing tried fits {where.name}; use a larger slice.")
    return False
  console.print(
    f"best: train {plan.choice.flags(where.chips, 1)}", soft_wrap=True
  )
  if not proven:
    console.print("Search incomplete: a larger --tries may find a faster one.")
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  return True


def _parse(argv: list[str]) -> list[str]:
  command_line.show_help(argv, __doc__)
  return command_line.parse(argv, required=("config", "topology"))


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
