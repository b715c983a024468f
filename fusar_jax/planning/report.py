"""Tables of a plan: memory, FLOPs, collectives, roofline; memory options.

All numbers are per device, a chip or a chiplet of TPU7x, unless a row states
otherwise.
"""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from fusar_jax.planning.chips import GIB, Slice
from fusar_jax.planning.compile_hlo import DoesNotFitError, Memory
from fusar_jax.planning.flops import Work
from fusar_jax.planning.prediction import (
  COMPUTE,
  HBM,
  LINKS,
  NETWORK,
  Prediction,
)


def memory_table(title: str, memory: Memory, where: Slice) -> Table:
  """Returns the memory of a program, absolute and as a share of the HBM."""
  table = _table(title, "memory per device", "GiB", "share")
  for name, count in (
    ("arguments", memory.arguments),
    ("temporaries", memory.temporaries),
    ("peak", memory.peak),
    (f"HBM of {where.chip.name}", where.chip.memory),
  ):
    share = f"{count / where.chip.memory:.0%}"
    table.add_row(name, f"{count / GIB:.2f}", share)
  return table


def work_table(work: Sequence[Work]) -> Table:
  """Returns the FLOPs of one sample by part of the model."""
  columns = (
    "useful",
    "forward",
    "backward",
    "recomputed",
    "wasted",
    "executed",
  )
  table = _table("FLOPs per sample, TFLOP", "part", *columns)
  total = [0.0] * len(columns)
  for w in work:
    values = [getattr(w, column) / 1e12 for column in columns]
    total = [a + b for a, b in zip(total, values, strict=True)]
    table.add_row(w.part, *(f"{v:.2f}" for v in values))
  table.add_row("all", *(f"{v:.2f}" for v in total))
  return table


def collective_table(prediction: Prediction) -> Table:
  """Returns the collectives of one run: count, bytes received, time.

  Only asynchronous ones can overlap with other work.
  """
  table = _table(
    "Collectives per step", "kind", "axes", "async", "times", "GB", "ms"
  )
  for e in prediction.collectives:
    axes = "+".join("xyz"[axis] for axis in e.axes) or "-"
    values = f"{e.bytes / 1e9:.3f}", f"{e.seconds * 1e3:.1f}"
    started = "yes" if e.started else "no"
    table.add_row(e.kind, axes, started, str(e.times), *values)
  if not prediction.collectives:
    table.add_row("none", "-", "-", "0", "0", "0")
  if NETWORK in prediction.seconds:
    milliseconds = f"{prediction.seconds[NETWORK] * 1e3:.1f}"
    sent = f"{prediction.network / 1e9:.3f}"
    table.add_row(NETWORK, "-", "-", "-", sent, milliseconds)
  return table


def roofline_table(prediction: Prediction, unit: str = "samples") -> Table:
  """Returns the time per roofline limit, the bound, the speed and the MFU.

  MFU is given for the roofline step and for the serial step; see `prediction`.
  """
  table = _table("Upper bounds, from published rates", "limit", "ms", "")
  for name, seconds in prediction.seconds.items():
    mark = "bounds the step" if name == prediction.bound else ""
    table.add_row(name, f"{seconds * 1e3:.1f}", mark)
  table.add_section()
  speed = prediction.samples_per_second
  limit = f"upper bound: {prediction.bound}"
  table.add_row(f"{unit}/s, all chips", f"{speed:.1f}", limit)
  if unit == "samples":
    share = f"{prediction.useful_share:.1%}"
    table.add_row("useful / executed FLOPs", share, "set by the remat policy")
    table.add_row("MFU, roofline", f"{prediction.mfu:.1%}", limit)
    if prediction.collectives:
      serial = f"{prediction.serial_mfu:.1%}"
      sum_of = f"max({COMPUTE}, {HBM}) + {LINKS}"
      if NETWORK in prediction.seconds:
        sum_of += f" + {NETWORK}"
      table.add_row("MFU, serial", serial, sum_of)
  return table


def does_not_fit(
  error: DoesNotFitError, where: Slice, options: Sequence[str]
) -> str:
  """Returns the compiler's memory error and the applicable memory options."""
  if error.used:
    needed = (
      f"needs {error.used / GIB:.2f} GiB a device; the compiler may use"
      f" {error.limit / GIB:.2f} of the {where.chip.memory / GIB:.0f} GiB of"
      f" {where.chip.name}"
    )
  else:
    needed = str(error)
  lines = [f"Does not fit {where.name}: {needed}."]
  if error.largest:
    lines += ["Largest buffers, as reported by the compiler:"]
    lines += [f"  {line}" for line in error.largest[:5]]
  lines += ["Memory options:", *(f"  {option}" for option in options)]
  return "\n".join(lines)


def plan_of_step(
  memory: Memory, work: Sequence[Work], prediction: Prediction
) -> Group:
  """Returns all tables of a train step that fits."""
  return Group(
    memory_table("Train step", memory, prediction.where),
    work_table(work),
    collective_table(prediction),
    roofline_table(prediction),
  )


def plan_of_decoding(memory: Memory, prediction: Prediction) -> Group:
  """Returns the tables of generation; one iteration decodes a token per row."""
  return Group(
    memory_table("Generation", memory, prediction.where),
    roofline_table(prediction, unit="tokens"),
  )


def _table(title: str, *columns: str) -> Table:
  table = Table(title=title, title_justify="left")
  for number, column in enumerate(columns):
    table.add_column(column, justify="right" if number else "left")
  return table
