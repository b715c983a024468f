"""Compiles a program for TPUs up to optimized HLO, without code generation.

Instructions, schedule and buffer assignment take the compiler seconds; machine
code, which planning does not need, takes minutes more. A child process compiles
and dumps the optimized HLO and the buffer assignment. The child is killed when
both files are complete.
"""

import dataclasses
import multiprocessing
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax

from fusar_jax.io.child_process import end_with_parent, without_interrupts
from fusar_jax.planning import libtpu
from fusar_jax.planning.chips import GIB, Slice
from fusar_jax.planning.topology import devices_of
from fusar_jax.training import device_mesh

_POLL_SECONDS = 0.2
# Suffixes of the dumped files; the compiler writes the program last.
_BUFFERS = ".after_optimizations-buffer-assignment.txt"
_PROGRAM = ".after_optimizations_after_buffer_assignment.txt"
# Its out-of-memory messages: after buffer assignment, or before it, for
# arguments or temporaries alone.
_OUT_OF_MEMORY = (
  r"Used ([\d.]+)(\w?) of ([\d.]+)(\w?) hbm",
  r"\(([\d.]+)(\w?)\) exceeds available HBM \(([\d.]+)(\w?)\)",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one chip.

  Attributes:
    arguments: parameters, optimizer state, batch.
    temporaries: peak size of the temporary buffers.
    outputs: results that alias no argument.
  """

  arguments: int
  temporaries: int
  outputs: int = 0

  @property
  def peak(self) -> int:
    return self.arguments + self.temporaries + self.outputs


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledProgram:
  """A program that fits: its memory and its optimized HLO text."""

  memory: Memory
  text: str


class DoesNotFitError(Exception):
  """The program exceeds the memory of a chip.

  Attributes:
    used, limit: bytes of one chip from the compiler's message; 0 if unknown.
    largest: the compiler's list of the largest buffers.
  """

  def __init__(self, message: str):
    self.used, self.limit = _used_and_limit(message)
    self.largest = _largest(message)
    super().__init__(message.splitlines()[0])


def compile_to_hlo(
  lower: Callable, where: Slice, sizes: tuple[int, int, int], *args
) -> CompiledProgram:
  """Compiles a program to optimized HLO.

  Args:
    lower: called in a child process with (mesh, *args); returns a
      `jax.stages.Lowered`.
    where: the slice.
    sizes: (data, fsdp, tensor) of the mesh.
    args: of `lower`; they must be picklable.

  Raises:
    DoesNotFitError: the program exceeds the memory of a chip.
    RuntimeError: another compiler error, with the compiler's message.
  """
  context = multiprocessing.get_context("spawn")
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
      target=_compile, args=(theirs, name, lower, where, sizes, args)
    )
    with without_interrupts():
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
      raise DoesNotFitError(f"Used {used:.2f}G of {limit:.2f}G hbm")
    return CompiledProgram(memory, (folder / (stem + _PROGRAM)).read_text())


def _written(folder: Path) -> str | None:
  """Returns the common stem of the dumped files if all are complete."""
  for path in folder.glob("*" + _PROGRAM):
    # An incomplete file still grows, and rarely ends with a brace.
    size = path.stat().st_size
    if path.read_text().endswith("}\n\n") and path.stat().st_size == size:
      return path.name.removesuffix(_PROGRAM)
  return None


def _compile(pipe, folder, lower, where, sizes, args) -> None:
  end_with_parent()
  libtpu.set_init_args(where.chip.name)
  mesh = device_mesh.make_mesh(*sizes, devices=devices_of(where))
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
    raise DoesNotFitError(message)
  raise RuntimeError(f"plan: {message}")


def read_memory(text: str) -> Memory:
  """Parses the buffer assignment of HBM; other memory spaces are ignored.

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


def _used_and_limit(message: str) -> tuple[int, int]:
  """Returns (used, limit), bytes of one chip; zeros if not in the message."""
  for pattern in _OUT_OF_MEMORY:
    found = re.search(pattern, message)
    if found:
      used, used_unit, limit, limit_unit = found.groups()
      return (
        round(float(used) * _UNITS[used_unit]),
        round(float(limit) * _UNITS[limit_unit]),
      )
  return 0, 0


def _largest(message: str) -> list[str]:
  """Returns the compiler's list of the largest buffers, one line each."""
  return [
    " ".join(entry.split())
    for entry in re.findall(r"Size: (.*?\n.*?Operator: .*?)\n", message, re.S)
  ]
