"""Memory and speed of a config on a TPU slice, without TPU hardware.

COMMAND:
  python -m fusar_jax.plan --config configs/stage2.py --topology v5e-16 \\
      --mesh auto --samples-per-chip 4
  python -m fusar_jax.plan --config configs/stage2.py --topology v5e-16 --search
  python -m fusar_jax.plan --config configs/stage2.py --topology v5e-4 --decode

Compiles the train step for the slice and prints memory, FLOPs and collectives
per chip, and the roofline bound on the speed. Exit code 1 if the step does not
fit. Needs libtpu (`pip install 'fusar-jax[plan]'`), but no TPU.
"""

import argparse
import os
import sys

from absl import logging

from fusar_jax import command_line
from fusar_jax.config_option import ConfigParser
from fusar_jax.inference.options import QUANTIZATIONS

# Rows per chip of --decode: batches of 16, the default of predict, on one chip.
_ROWS = 16


def parser() -> ConfigParser:
  """Returns the command line."""
  p = ConfigParser("plan", __doc__)
  p.add_argument(
    "--topology",
    required=True,
    help="TPU slice: v5e-16, v5p-64, tpu7x-8, or v5e:4x4",
  )
  p.add_argument(
    "--mesh", help="auto or DATA,FSDP,TENSOR (default: config.mesh)"
  )
  p.add_argument(
    "--samples-per-chip",
    type=int,
    metavar="N",
    help="samples per chip and micro-batch (default: from config.batch_size)",
  )
  p.add_argument(
    "--length",
    type=int,
    help="tokens per sample (default: the smallest of data.buckets)",
  )
  p.add_argument(
    "--answers",
    type=int,
    help="target positions per sample (default: the smallest of"
    " data.answer_buckets)",
  )
  p.add_argument(
    "--anchors",
    type=int,
    default=100,
    help="anchors per image (default: %(default)s)",
  )
  p.add_argument(
    "--slices",
    type=int,
    default=1,
    help="slices of this topology, connected by the data-center network; each"
    " holds a copy of the weights (default: %(default)s)",
  )
  p.add_argument(
    "--new-tokens",
    type=int,
    default=256,
    help="tokens to generate per answer (default: %(default)s)",
  )
  p.add_argument(
    "--decode",
    action="store_true",
    help="plan predict instead of a train step; --mesh auto is that of"
    " fusar_jax.load",
  )
  p.add_argument(
    "--quantize",
    choices=QUANTIZATIONS,
    help="format of the layers' kernels in predict, as its own --quantize",
  )
  p.add_argument(
    "--search",
    action=argparse.BooleanOptionalAction,
    default=False,
    help="search for the fastest mesh, batch and remat policy",
  )
  p.add_argument(
    "--tries",
    type=int,
    default=12,
    help="maximum number of programs that --search compiles (default:"
    " %(default)s)",
  )
  return p


def _plan(args: argparse.Namespace) -> int:
  """Prints the plan; returns 0 if it fits, else 1."""
  # Set before JAX initialises its backends: planning needs no accelerator.
  os.environ["JAX_PLATFORMS"] = "cpu"
  # Programs compiled for TPUs can be cached, but not read back without a TPU.
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  logging.use_absl_handler()
  logging.set_verbosity(logging.ERROR)
  # Slow imports: usage errors and --help must not wait for JAX.
  from rich.console import Console

  from fusar_jax.planning import report
  from fusar_jax.planning.chips import find_slices
  from fusar_jax.planning.compile_hlo import DoesNotFitError
  from fusar_jax.planning.plan import Planner, Shape
  from fusar_jax.training.device_mesh import AUTO, read_mesh
  from fusar_jax.training.run_config import resolve
  from fusar_jax.training.shapes import with_shapes

  config = with_shapes(resolve(args.config))
  where = find_slices(args.topology, args.slices)
  shape = Shape(
    args.length or config.data.buckets[0],
    args.answers or config.data.answer_buckets[0],
    args.anchors,
  )
  mesh = read_mesh(config.mesh if args.mesh is None else args.mesh)
  console = Console()
  devices = f", {where.devices} devices" * (where.devices > where.chips)
  slices = f"{where.count} slices of " * (where.count > 1)
  console.print(
    f"{slices}{where.name}: {where.chips} chips {where.topology}{devices};"
    f" {shape.length} tokens a sample, {shape.answers} target positions",
    highlight=False,
  )
  planner = Planner(config, where, shape)
  if args.decode:
    rows = args.samples_per_chip or _ROWS
    choice = planner.decoding_choice(
      AUTO if args.mesh is None else mesh, rows, args.quantize
    )
    return _decode(planner, console, where, choice, args)
  if args.search:
    return _search(planner, console, where, args.tries)
  choice, accumulation = planner.choice(mesh, args.samples_per_chip)
  console.print(
    f"train {choice.flags(where.devices, accumulation)}", soft_wrap=True
  )
  try:
    plan = planner.step(choice, accumulation)
  except DoesNotFitError as error:
    print(report.does_not_fit(error, where, planner.memory_options(choice)))
    return 1
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  _decode(planner, console, where, choice, args)
  return 0  # The train step fits.


def _decode(planner, console, where, choice, args) -> int:
  """Prints the plan of generation; returns 0 if it fits, else 1."""
  from fusar_jax.planning import report
  from fusar_jax.planning.compile_hlo import DoesNotFitError

  data, fsdp, tensor = choice.mesh
  quantize = f" --quantize {args.quantize}" if args.quantize else ""
  console.print(
    f"predict --mesh {data},{fsdp},{tensor} --batch-size"
    f" {int(choice.samples * where.devices)} --max-new-tokens {args.new_tokens}"
    f"{quantize}",
    soft_wrap=True,
  )
  try:
    plan = planner.decoding(choice, args.new_tokens, args.quantize)
  except DoesNotFitError as error:
    options = []
    if args.quantize != "nf4":
      options = ["--quantize int8 or nf4: 8 or 4.25 bits per layer weight"]
    print("Generation: " + report.does_not_fit(error, where, options))
    return 1
  console.print(report.plan_of_decoding(plan.memory, plan.prediction))
  return 0


def _search(planner, console, where, tries: int) -> int:
  from fusar_jax.planning import report
  from fusar_jax.planning.compile_hlo import DoesNotFitError

  def measured(choice, result):
    if isinstance(result, DoesNotFitError):
      outcome = f"does not fit ({result.used / 2**30:.1f} GiB)"
    else:
      p = result.prediction
      outcome = f"{p.samples_per_second:.1f} samples/s, bound by {p.bound}"
    data, fsdp, tensor = choice.mesh
    console.print(
      f"mesh {data},{fsdp},{tensor}  samples {choice.samples}  remat"
      f" {choice.remat}: {outcome}",
      highlight=False,
    )

  plan, proven = planner.search(tries, measured)
  if plan is None:
    print(f"Nothing tried fits {where.name}; use a larger slice.")
    return 1
  console.print(
    f"best: train {plan.choice.flags(where.devices, 1)}", soft_wrap=True
  )
  if not proven:
    console.print("Search incomplete: a larger --tries may find a faster one.")
  console.print(report.plan_of_step(plan.memory, plan.work, plan.prediction))
  return 0


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _plan, argv, errors=(RuntimeError,))


if __name__ == "__main__":
  sys.exit(main())
