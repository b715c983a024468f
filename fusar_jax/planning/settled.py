"""A program as a TPU's compiler settles it, before it writes machine code.

Which instructions there are, in which order, and where their buffers lie is
settled in seconds; machine code, which nobody runs here, takes minutes more. So
a child process compiles and lets the compiler write down what it has settled;
when that is there the child is ended.
"""

import dataclasses
import multiprocessing
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax

from fusar_jax.planning.chips import GIB, Slice
from fusar_jax.planning.topology import devices_of
from fusar_jax.training import sharding
from fusar_jax.training.child import end_with_parent

_POLL_SECONDS = 0.2
# What the compiler writes, the program last.
_BUFFERS = ".after_optimizations-buffer-assignment.txt"
_PROGRAM = ".after_optimizations_after_buffer_assignment.txt"
# How it says that memory ran out: after it had tried to place all, or before,
# of arguments or temporaries alone.
_TOLD = (
  r"Used ([\d.]+)(\w?) of ([\d.]+)(\w?) hbm",
  r"\(([\d.]+)(\w?)\) exceeds available HBM \(([\d.]+)(\w?)\)",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one chip.

  Attributes:
    arguments: parameters, optimizer state, batch.
    temporaries: what lives during the program besides, at its fullest.
    outputs: results that do not take the place of an argument.
  """

  arguments: int
  temporaries: int
  outputs: int = 0

  @property
  def peak(self) -> int:
    return self.arguments + self.temporaries + self.outputs


@dataclasses.dataclass(frozen=True, eq=False)
class Settled:
  """A program that fits: its memory, and its text after optimization."""

  memory: Memory
  text: str


class DoesNotFit(Exception):
  """The compiler found no way to hold the program in memory.

  Attributes:
    used, limit: bytes of one chip, as the compiler tells them; 0: it did not.
    largest: its own list of the largest buffers.
  """

  def __init__(self, message: str):
    self.used, self.limit = _told(message)
    self.largest = _largest(message)
    super().__init__(message.splitlines()[0])


def settle(
  lower: Callable, where: Slice, sizes: tuple[int, int, int], *args
) -> Settled:
  """Returns what the compiler makes of a program.

  Args:
    lower: called in another process with (mesh, *args); returns what `jit`
      lowers.
    where, sizes: of the mesh.
    args: of `lower`; they must pickle.

  Raises:
    DoesNotFit: the program does not fit the chips' memory.
    RuntimeError: the compiler failed otherwise; the message is its own.
  """
  context = multiprocessing.get_context("spawn")
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
      target=_compile, args=(theirs, name, lower, where, sizes, args)
    )
    child.start()
    theirs.close()
    try:
      while not (stem := _written(folder)):
        if ours.poll(_POLL_SECONDS) and not _written(folder):
          _raise(ours, child)
    finally:
      child.kill()
      child.join()
    memory = read_memory((folder / (stem + _BUFFERS)).read_text())
    if memory.peak > where.chip.memory:
      used, limit = memory.peak / GIB, where.chip.memory / GIB
      raise DoesNotFit(f"Used {used:.2f}G of {limit:.2f}G hbm")
    return Settled(memory, (folder / (stem + _PROGRAM)).read_text())


def _written(folder: Path) -> str | None:
  """What the names of the compiler's files begin with, if all are whole."""
  for path in folder.glob("*" + _PROGRAM):
    # A text that is being written grows, and seldom ends with a brace.
    size = path.stat().st_size
    if path.read_text().endswith("}\n\n") and path.stat().st_size == size:
      return path.name.removesuffix(_PROGRAM)
  return None


def _compile(pipe, folder, lower, where, sizes, args) -> None:
  end_with_parent()
  mesh = sharding.make_mesh(*sizes, devices=devices_of(where))
  lowered = lower(mesh, *args)
  try:
    lowered.compile(
      compiler_options={"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
    )
  except jax.errors.JaxRuntimeError as error:
    pipe.send(str(error))


def _raise(pipe, child) -> None:
  try:
    message = pipe.recv()
  except EOFError:
    child.join()
    message = f"the compiler's process ended with code {child.exitcode}."
  if "RESOURCE_EXHAUSTED" in message:
    raise DoesNotFit(message)
  raise RuntimeError(f"plan: {message}")


def read_memory(text: str) -> Memory:
  """Reads the compiler's assignment of buffers; other memories are left out.

  Example of two lines, 512 B of HBM and 2 KiB of vector memory (a color):
    allocation 3: size 512, page 0, parameter 50, shape |f32[128]| at ...
    allocation 4: size 2048, color 1, page 0, preallocated-temp:
  """
  sums: Counter[str] = Counter()
  for size, kind in re.findall(
    r"^allocation \d+: size (\d+), page \d+, ([\w-]+)", text, re.M
  ):
    sums[kind] += int(size)
  return Memory(
    arguments=sums["parameter"],
    temporaries=sums["preallocated-temp"],
    outputs=sums["maybe-live-out"] + sums["output"],
  )


def _told(message: str) -> tuple[int, int]:
  """(used, limit), bytes of one chip."""
  for pattern in _TOLD:
    found = re.search(pattern, message)
    if found:
      used, used_unit, limit, limit_unit = found.groups()
      return (
        round(float(used) * _UNITS[used_unit]),
        round(float(limit) * _UNITS[limit_unit]),
      )
  return 0, 0


def _largest(message: str) -> list[str]:
  """The compiler's list of the largest buffers, a line each."""
  return [
    " ".join(entry.split())
    for entry in re.findall(r"Size: (.*?\n.*?Operator: .*?)\n", message, re.S)
  ]
