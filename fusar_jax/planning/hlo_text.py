"""Parser of optimized HLO text: computations, instructions, replica groups.

Parses what cost counting needs: names, types, operands, attributes.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

_BITS = {
  "pred": 8,
  **{f"{kind}{bits}": bits for kind in "su" for bits in (2, 4, 8, 16, 32, 64)},
  **{"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclasses.dataclass(frozen=True)
class Array:
  """An array type: bits per element, shape, whether it is in HBM."""

  bits: int
  shape: tuple[int, ...]
  in_hbm: bool

  @property
  def size(self) -> int:
    return math.prod(self.shape)

  @property
  def bytes(self) -> int:
    return self.size * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One instruction: `%name = type opcode(operands), attributes`."""

  name: str
  arrays: tuple[Array, ...]
  opcode: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def attribute(self, name: str) -> str | None:
    """Returns the value of `name=%value`, or None."""
    found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
    return found[1] if found else None

  def called(self) -> str | None:
    """Returns the computation that a custom call stands for, or None."""
    found = re.search(r"\bcalled_computations=\{%?([\w.\-]+)\}", self.rest)
    return found[1] if found else None

  def required(self, name: str) -> str:
    """Returns the value of `name=%value`; raises ValueError without one."""
    return self.match(rf"\b{name}=%?([\w.\-]+)")[1]

  def match(self, pattern: str) -> re.Match[str]:
    """Returns the match of a pattern; raises ValueError without one."""
    found = re.search(pattern, self.rest)
    if found is None:
      raise ValueError(
        f"HLO: {self.opcode} {self.name} does not match {pattern!r}."
      )
    return found


@dataclasses.dataclass(frozen=True)
class Text:
  """A parsed program.

  Attributes:
    computations: {computation name: {instruction name: instruction}}.
    entry: name of the entry computation.
    partitions: number of SPMD partitions (chips).
  """

  computations: dict[str, dict[str, Instruction]]
  entry: str
  partitions: int


def parse(text: str) -> Text:
  """Parses `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations: dict[str, dict[str, Instruction]] = {}
  entry, current = "", None
  for line in text.splitlines():
    if line[:1] in ("%", "E") and line.endswith("{"):
      name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
      current = computations.setdefault(name, {})
      if line.startswith("ENTRY "):
        entry = name
    elif (
      line == "}"
    ):  # Exact match: lines of kernel attributes may start with }.
      current = None
    elif current is not None and " = " in line:
      instruction = _instruction(line.strip())
      current[instruction.name] = instruction
  if not entry:
    raise ValueError("the text contains no ENTRY computation; is it HLO?")
  partitions = re.search(r"num_partitions=(\d+)", text)
  return Text(computations, entry, int(partitions[1]) if partitions else 1)


def pairs(text: str) -> tuple[tuple[int, ...], ...]:
  return tuple(
    tuple(map(int, group.split(",")))
    for group in re.findall(r"\{([\d,]+)\}", text)
  )


def groups(rest: str, partitions: int) -> tuple[tuple[int, ...], ...]:
  """Returns replica groups: a list, a transposed iota, or axes of a mesh.

  Examples: replica_groups={{0,2},{1,3}}, [2,2]<=[2,2]T(1,0) and
  mesh['a'=2,'b'=2] {'a'} are equal.
  """
  listed = re.search(r"replica_groups=\{(\{.*?\})\}", rest)
  if listed:
    return pairs(listed[1])
  named = re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", rest)
  if named:
    return _of_mesh(*named.groups())
  ranged = re.search(
    r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest
  )
  if not ranged:
    return (tuple(range(partitions)),)
  shape, source = (tuple(map(int, s.split(","))) for s in ranged.group(1, 2))
  turned = map(int, ranged[3].split(",")) if ranged[3] else range(len(source))
  return _cut(_turned(source, tuple(turned)), shape[-1])


def _of_mesh(axes: str, taken: str) -> tuple[tuple[int, ...], ...]:
  """Returns the groups along axes of a mesh with partitions in C order."""
  sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
  names = re.findall(r"'(\w+)'", taken)
  order = [list(sizes).index(n) for n in sizes if n not in names]
  order += [list(sizes).index(n) for n in names]
  flat = _turned(tuple(sizes.values()), order)
  return _cut(flat, math.prod(sizes[n] for n in names))


def _cut(flat: list[int], size: int) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(flat[k : k + size]) for k in range(0, len(flat), size))


def _turned(source: tuple[int, ...], order: Sequence[int]) -> list[int]:
  """Returns arange of this shape, transposed and flattened."""
  strides = [math.prod(source[k + 1 :]) for k in range(len(source))]
  flat = [0]
  for axis in order:
    flat = [n + k * strides[axis] for n in flat for k in range(source[axis])]
  return flat


def _instruction(line: str) -> Instruction:
  root = line.startswith("ROOT ")
  name, _, line = line.removeprefix("ROOT ").partition(" = ")
  kind, line = _until_space(line)
  opcode, _, rest = line.partition("(")
  inner = _closed(rest)
  operands = tuple(re.findall(r"%([\w.\-]+)", inner))
  after = rest if opcode in ("parameter", "constant") else rest[len(inner) :]
  return Instruction(
    name.lstrip("%"), _arrays(kind), opcode.strip(), operands, after, root
  )


def _until_space(line: str) -> tuple[str, str]:
  """Splits at the first space outside of brackets: tuple types have spaces."""
  depth = 0
  for place, letter in enumerate(line):
    depth += (letter in "([{") - (letter in ")]}")
    if letter == " " and not depth:
      return line[:place], line[place + 1 :]
  return line, ""


def _closed(text: str) -> str:
  """Returns the text before the unmatched closing parenthesis."""
  depth = 1
  for place, letter in enumerate(text):
    depth += (letter == "(") - (letter == ")")
    if not depth:
      return text[:place]
  return text


def _arrays(kind: str) -> tuple[Array, ...]:
  return tuple(
    Array(
      _BITS.get(dtype, 8),
      tuple(int(n) for n in sizes.split(",") if n),
      not re.search(r"S\([1-9]", layout),
    )
    for dtype, sizes, layout in _ARRAY.findall(kind)
    if dtype != "token"
  )
