"""What a compiled program does, read from its text (optimized HLO).

XLA's own `cost_analysis` counts the body of a loop once; a scanned model is
nearly all body. Here every computation counts as often as it runs: loops by
their trip count, of the branches of a condition the dearest.

Bytes of HBM are those of operands and results, once each, of what stands
between fusions; of an operand that is only sliced, its slices. Buffers in other
memories (layouts with S(1), vector memory) cost none. It is a lower bound: what
the compiler moves for itself inside an instruction is not seen.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

from fusar_jax.planning.convolutions import convolution_flops
from fusar_jax.planning.hlo_text import Array, Instruction, groups, pairs, parse

_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)
# Nothing is read or written where these stand, or elsewhere already.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "while",
  "conditional",
  "call",
  "after-all",
  "opt-barrier",
  "optimization-barrier",
  "partition-id",
  "replica-id",
  "iota",
}
# Inside a fusion.
_HANDED = {"parameter", *_COLLECTIVES}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One kind of exchange, among groups of one shape.

  Attributes:
    kind: "all-gather", ...
    groups: of partition numbers; for a permutation the pairs.
    times: how often it runs.
    bytes: that one chip receives, each time, if nothing is sent twice.
  """

  kind: str
  groups: tuple[tuple[int, ...], ...]
  times: int
  bytes: float

  @property
  def total(self) -> float:
    return self.times * self.bytes


@dataclasses.dataclass(frozen=True)
class Traffic:
  """What one chip does in one run of the program.

  Attributes:
    collectives: one entry per instruction.
    hbm: bytes read and written.
    flops: of products outside of custom kernels.
    unknown_loops: loops whose trip count the text does not tell; counted once.
  """

  collectives: tuple[Collective, ...] = ()
  hbm: float = 0.0
  flops: float = 0.0
  unknown_loops: tuple[str, ...] = ()

  def __add__(self, other: "Traffic") -> "Traffic":
    return Traffic(
      self.collectives + other.collectives,
      self.hbm + other.hbm,
      self.flops + other.flops,
      self.unknown_loops + other.unknown_loops,
    )

  def repeated(self, times: int) -> "Traffic":
    return Traffic(
      tuple(
        dataclasses.replace(c, times=c.times * times) for c in self.collectives
      ),
      self.hbm * times,
      self.flops * times,
      self.unknown_loops,
    )


def read(text: str) -> Traffic:
  """Returns the traffic of a program.

  Args:
    text: `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation.
  """
  program = _Program(text)
  return program.traffic(program.entry)


def read_endless(text: str) -> Traffic:
  """Returns one turn of the dearest loop that only its data ends.

  Args:
    text: `compiled.as_text()`.

  Raises:
    ValueError: there is no such loop.
  """
  program = _Program(text)
  turns = program.endless()
  if not turns:
    raise ValueError("every loop of the program has a trip count.")
  return max(turns, key=lambda t: (t.flops, t.hbm))


class _Program:
  def __init__(self, text: str):
    parsed = parse(text)
    self._computations, self.entry = parsed.computations, parsed.entry
    self._partitions = parsed.partitions
    self._known: dict[str, Traffic] = {}
    # The compiler spreads an exchange over several fusions that compute beside
    # it, also over those of a loop that runs meanwhile.
    self._starts = {
      name
      for name, lines in self._computations.items()
      if any(
        i.root and "AsyncCollectiveStart" in i.rest for i in lines.values()
      )
    }
    self._started = {
      i.attribute("channel_id")
      for name in self._starts
      for i in self._computations[name].values()
    } - {None}

  def traffic(self, name: str) -> Traffic:
    """All that happens in a computation and what it calls."""
    if name not in self._known:
      total = Traffic()
      for instruction in self._computations[name].values():
        total += self._one(instruction, name)
      self._known[name] = total
    return self._known[name]

  def endless(self) -> list[Traffic]:
    """One turn of each loop of the entry whose trip count is not told."""
    return [
      self.traffic(i.attribute("body"))
      for i in self._computations[self.entry].values()
      if i.opcode == "while" and self._trips(i) is None
    ]

  def _one(self, i: Instruction, where: str) -> Traffic:
    if i.opcode == "while":
      trips = self._trips(i)
      body = self.traffic(i.attribute("body")).repeated(trips or 1)
      if trips is None:
        body += Traffic(unknown_loops=(i.name,))
      return body
    if i.opcode == "conditional":
      branches = [self.traffic(name) for name in _branches(i)]
      return max(branches, key=lambda t: (t.flops, t.hbm))
    if i.opcode == "call":
      return self.traffic(i.attribute("to_apply"))
    total = Traffic(hbm=self._hbm(i, where), flops=self._flops(i, where))
    called = i.attribute("calls")
    if called:
      # Inside a fusion only products and exchanges count: the rest is there.
      inner = self.traffic(called)
      total += dataclasses.replace(inner, hbm=0.0)
    collective = self._collective(i, where)
    if collective:
      total += Traffic(collectives=(collective,))
    return total

  def _trips(self, i: Instruction) -> int | None:
    """Turns of a loop that counts up from 0 to a constant; None: not told.

    A condition that is more than one comparison may end the loop before.
    """
    condition = self._computations[i.attribute("condition")]
    root = next(c for c in condition.values() if c.root)
    if root.opcode == "fusion":
      fused = self._computations[root.attribute("calls")]
      root = next(c for c in fused.values() if c.root)
    if root.opcode != "compare":
      return None
    limits = [
      int(c.rest.split(")")[0])
      for c in condition.values()
      if c.opcode == "constant" and re.match(r"\d+\)", c.rest)
    ]
    if len(limits) != 1:
      return None
    return -(-limits[0] // self._step(i, condition))

  def _step(self, i: Instruction, condition) -> int:
    """What a loop's counter grows by in a turn: bodies may hold two."""
    root = next(c for c in condition.values() if c.root)
    counters = [
      int(condition[name].attribute("index"))
      for name in root.operands
      if name in condition and condition[name].opcode == "get-tuple-element"
    ]
    body = self._computations[i.attribute("body")]
    end = next(c for c in body.values() if c.root)
    if len(counters) != 1 or end.opcode != "tuple":
      return 1
    grown = body.get(end.operands[counters[0]])
    steps = [
      int(body[name].rest.split(")")[0])
      for name in (grown.operands if grown and grown.opcode == "add" else ())
      if name in body and body[name].opcode == "constant"
    ]
    return steps[0] if len(steps) == 1 else 1

  def _arrays(self, where: str, name: str) -> tuple[Array, ...]:
    found = self._computations[where].get(name)
    return found.arrays if found else ()

  def _hbm(self, i: Instruction, where: str) -> float:
    if i.opcode in _FREE or i.opcode.endswith(("-done", "-update")):
      return 0.0
    written = _written(i)
    if i.opcode == "fusion":
      fused = self._computations[i.attribute("calls")]
      return self._fusion(i, fused, where)
    read = [a for name in i.operands for a in self._arrays(where, name)]
    if i.opcode in ("dynamic-slice", "slice", "gather"):
      read = list(written)
    if i.opcode in ("dynamic-update-slice", "scatter"):
      changed = self._arrays(where, i.operands[-1 if "sc" in i.opcode else 1])
      read, written = list(changed), changed
    return _hbm_bytes(read) + _hbm_bytes(written)

  def _fusion(self, i: Instruction, fused, where) -> float:
    root = next(u for u in fused.values() if u.root)
    if "AsyncCollectiveDone" in root.rest:
      return 0.0
    if "AsyncCollectiveStart" in root.rest:
      read = [a for name in i.operands for a in self._arrays(where, name)]
      return _hbm_bytes(read) + _hbm_bytes(i.arrays[1:2])
    # What is only handed on, an exchange under way with it, costs nothing.
    handed = {n for n, u in fused.items() if u.opcode in _HANDED}
    inside = _parameters(fused)
    total = 0.0
    for number, name in enumerate(i.operands):
      whole = _hbm_bytes(self._arrays(where, name))
      if not whole:
        continue
      users = [u for u in fused.values() if inside[number] in u.operands]
      if all(u.opcode == "tuple" or u.name in handed for u in users):
        continue
      total += self._read(fused, inside[number], whole)
    results = (
      [fused.get(name, root) for name in root.operands]
      if root.opcode == "tuple"
      else [root]
    )
    for array, result in zip(i.arrays, results, strict=False):
      if not array.in_hbm or result.name in handed:
        continue
      if result.opcode == "dynamic-update-slice":
        changed = fused.get(result.operands[1])
        array = changed.arrays[0] if changed else array
      total += array.bytes
    return total

  def _read(self, fused, name: str, whole: float) -> float:
    """Bytes that a fusion reads of a value: its slices, or the whole of it."""
    if fused[name].root:
      return whole  # Whoever calls uses it as it is.
    read = 0.0
    for u in fused.values():
      if name not in u.operands:
        continue
      first = u.operands[0] == name
      if u.opcode in ("dynamic-slice", "slice", "gather") and first:
        read += sum(a.bytes for a in u.arrays)
      elif u.opcode == "dynamic-update-slice" and first:
        pass  # What is not written stays where it is.
      elif u.opcode == "bitcast":
        read += self._read(fused, u.name, whole)
      elif u.opcode == "fusion":
        inner = self._computations[u.attribute("calls")]
        names = _parameters(inner)
        read += sum(
          self._read(inner, names[number], whole)
          for number, operand in enumerate(u.operands)
          if operand == name
        )
      else:
        return whole
    return min(read, whole)

  def _flops(self, i: Instruction, where: str) -> float:
    if i.opcode == "dot":
      left = self._arrays(where, i.operands[0])[0].shape
      axes = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)[1]
      inner = math.prod(left[int(a)] for a in axes.split(",") if a)
      return 2.0 * i.arrays[0].size * inner
    if i.opcode == "convolution":
      return convolution_flops(
        i, *(self._arrays(where, name)[0].shape for name in i.operands)
      )
    return 0.0

  def _collective(self, i: Instruction, where: str) -> Collective | None:
    kind = i.opcode.removesuffix("-start")
    if kind not in _COLLECTIVES:
      return None
    if i.attribute("channel_id") in self._started and where not in self._starts:
      return None  # A later part of an exchange that was counted at its start.
    operands = [a for n in i.operands for a in self._arrays(where, n)]
    given = sum(a.bytes for a in operands)
    if kind == "collective-permute":
      listed = re.search(r"source_target_pairs=\{(.*?\})\}", i.rest)
      members = pairs(listed[1]) if listed else ()
      return Collective(kind, members, 1, float(given))
    members = groups(i.rest, self._partitions)
    size = len(members[0])
    share = {
      "all-gather": size - 1,  # of every other's piece
      "all-reduce": 2 * (size - 1) / size,  # scattered, then gathered
      "reduce-scatter": (size - 1) / size,
      "all-to-all": (size - 1) / size,
    }[kind]
    return Collective(kind, members, 1, given * share)


def _parameters(fused: dict[str, Instruction]) -> dict[int, str]:
  """Number of a parameter -> its name within a fusion."""
  return {
    int(i.rest.split(")")[0]): i.name
    for i in fused.values()
    if i.opcode == "parameter"
  }


def _written(i: Instruction) -> tuple[Array, ...]:
  # What starts a transfer returns its operand and flags, too.
  if i.opcode == "copy-start":
    return i.arrays[:1]
  if i.opcode.endswith("-start") and len(i.arrays) > 1:
    return i.arrays[1:2]
  return i.arrays


def _hbm_bytes(arrays) -> float:
  return float(sum(a.bytes for a in arrays if a.in_hbm))


def _branches(i: Instruction) -> Iterator[str]:
  listed = re.search(r"branch_computations=\{([^}]*)\}", i.rest)
  if listed:
    return (name.strip().lstrip("%") for name in listed[1].split(","))
  return iter(
    (i.attribute("true_computation"), i.attribute("false_computation"))
  )
