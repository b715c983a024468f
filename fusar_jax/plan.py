"""Plans a pod without the pod: `python -m fusar_jax.plan --config FILE.py ...`.

Compiles the very train step of a config for TPUs that are not here, and tells
per chip its memory, its work, its traffic, and how fast it can be at most:
  python -m fusar_jax.plan --config configs/stage2.py --topology v5e-16 \\
      --mesh auto --samples-per-chip 4

Exit code 1 if it does not fit. Every field of the config can be overridden, as
for `train`. Needs libtpu (`pip install 'fusar-jax[plan]'`), but no TPU.
"""

import os
import sys

# Before JAX looks for devices: a plan needs none.
os.environ["JAX_PLATFORMS"] = "cpu"
# What is compiled for TPUs can be kept, but not read again without one.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

from absl import app, flags, logging

from fusar_jax import command_line

_CONFIG = command_line.define_config()
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "Slice of TPUs: v5e-16, v5p-64, ..., or v5e:4x4."
)
_MESH = flags.DEFINE_string(
  "mesh", None, "auto, or data,fsdp,tensor; none: the config's."
)
_SAMPLES = flags.DEFINE_integer(
  "samples_per_chip",
  None,
  "Samples of a micro-batch on each chip; none: the config's batch.",
)
_LENGTH = flags.DEFINE_integer(
  "length", None, "Tokens of a sample; none: the config's smallest bucket."
)
_ANSWERS = flags.DEFINE_integer(
  "answers", None, "Answer slots; none: the config's smallest bucket."
)
_ANCHORS = flags.DEFINE_integer("anchors", 100, "Anchors of an image.")
_NEW_TOKENS = flags.DEFINE_integer(
  "new_tokens", 256, "Tokens of an answer, when the model is asked."
)
_SEARCH = flags.DEFINE_bool(
  "search", False, "Find the best mesh, batch and rematerialisation."
)
_TRIES = flags.DEFINE_integer(
  "tries", 12, "Programs that --search compiles at most."
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
  """Plans what the flags ask for, prints it; True if it fits."""
  # Slow: mistakes in flags and --help need no JAX.
  from rich.console import Console

  from fusar_jax.planning import report
  from fusar_jax.planning.chips import find_slice
  from fusar_jax.planning.plan import Planner, Shape
  from fusar_jax.planning.settled import DoesNotFit
  from fusar_jax.training.sharding import read_mesh
  from fusar_jax.training.start import with_shapes

  config, where = with_shapes(_CONFIG.value), find_slice(_TOPOLOGY.value)
  shape = Shape(
    _LENGTH.value or config.data.buckets[0],
    _ANSWERS.value or config.data.answer_buckets[0],
    _ANCHORS.value,
  )
  mesh = read_mesh(config.mesh if _MESH.value is None else _MESH.value)
  console = Console()
  console.print(
    f"{where.name}: {where.chips} chips {where.topology};"
    f" {shape.length} tokens a sample, {shape.answers} of answers",
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
  except DoesNotFit as error:
    print(report.does_not_fit(error, where, planner.knobs(choice)))
    return False
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  try:
    answering = planner.decoding(choice, _NEW_TOKENS.value)
  except DoesNotFit as error:
    print("Answering: " + report.does_not_fit(error, where, []))
    return True  # Training does.
  console.print(report.plan_of_decoding(answering.memory, answering.prediction))
  return True


def _search(planner, console, where) -> bool:
  from fusar_jax.planning import report
  from fusar_jax.planning.settled import DoesNotFit

  def measured(choice, result):
    if isinstance(result, DoesNotFit):
      told = f"does not fit ({result.used / 2**30:.1f} GiB)"
    else:
      p = result.prediction
      told = f"{p.samples_per_second:.1f} samples/s, {p.bound} bounds"
    data, fsdp, tensor = choice.mesh
    console.print(
      f"mesh {data},{fsdp},{tensor}  samples {choice.samples}  remat"
      f" {choice.remat}: {told}",
      highlight=False,
    )

  plan, proven = planner.search(_TRIES.value, measured)
  if plan is None:
    print(f"Nothing tried fits {where.name}; take a larger slice.")
    return False
  console.print(
    f"best: train {plan.choice.flags(where.chips, 1)}", soft_wrap=True
  )
  if not proven:
    console.print("More programs might be faster: give a larger --tries.")
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  return True


def _parse(argv: list[str]) -> list[str]:
  command_line.show_help(argv, __doc__)
  return command_line.parse(argv, required=("config", "topology"))


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
