"""FLOPs, HBM traffic and collectives of a program, from its optimized HLO.

XLA's `cost_analysis` counts the body of a loop once, but a scanned model is
nearly all loop body. Here every computation counts as often as it runs: a loop
by its trip count, a conditional by its most expensive branch.

HBM bytes are the operands and results of instructions outside of fusions, once
each; for an operand that is only sliced, the slices. Buffers in other memories
(layouts with S(1), vector memory) cost nothing. The sum is a lower bound: data
movement inside an instruction is not visible.
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
# No traffic, or traffic that is counted at other instructions.
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
# A SparseCore of the chip works beside the TensorCore: collectives and gathers.
_SPARSE_CORE = 'async_execution_thread="sparsecore"'
# Pass-through inside a fusion.
_HANDED = {"parameter", *_COLLECTIVES}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective.

  Attributes:
    kind: "all-gather", ...
    groups: replica groups of partition numbers; pairs for a permutation.
    times: number of executions.
    bytes: received by one chip per execution, if nothing is sent twice.
    started: it is asynchronous, started before it is awaited.
  """

  kind: str
  groups: tuple[tuple[int, ...], ...]
  times: int
  bytes: float
  started: bool = False

  @property
  def total(self) -> float:
    return self.times * self.bytes


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Operations of one chip in one run of the program.

  Attributes:
    collectives: one entry per instruction.
    hbm: bytes read and written.
    flops: of products outside of custom kernels.
    network: bytes that a chip hands to the network between slices.
    unknown_loops: loops without a static trip count; counted once.
  """

  collectives: tuple[Collective, ...] = ()
  hbm: float = 0.0
  flops: float = 0.0
  network: float = 0.0
  unknown_loops: tuple[str, ...] = ()

  def __add__(self, other: "Traffic") -> "Traffic":
    return Traffic(
      self.collectives + other.collectives,
      self.hbm + other.hbm,
      self.flops + other.flops,
      self.network + other.network,
      self.unknown_loops + other.unknown_loops,
    )

  def as_started(self) -> "Traffic":
    """Returns the traffic with all collectives asynchronous."""
    collectives = (
      dataclasses.replace(c, started=True) for c in self.collectives
    )
    return dataclasses.replace(self, collectives=tuple(collectives))

  def repeated(self, times: int) -> "Traffic":
    return Traffic(
      tuple(
        dataclasses.replace(c, times=c.times * times) for c in self.collectives
      ),
      self.hbm * times,
      self.flops * times,
      self.network * times,
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


def read_decoding_loop(text: str) -> Traffic:
  """Returns one iteration of the costliest loop without a static trip count.

  Args:
    text: `compiled.as_text()`.

  Raises:
    ValueError: there is no such loop.
  """
  program = _Program(text)
  turns = program.open_loops()
  if not turns:
    raise ValueError("every loop of the program has a trip count.")
  return max(turns, key=lambda t: (t.flops, t.hbm))


class _Program:
  def __init__(self, text: str):
    parsed = parse(text)
    self._computations, self.entry = parsed.computations, parsed.entry
    self._partitions = parsed.partitions
    self._known: dict[str, Traffic] = {}
    # The compiler splits an asynchronous collective over several fusions that
    # compute at the same time, also over those of a concurrent loop.
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
    """Returns the traffic of a computation, including its callees."""
    if name not in self._known:
      total = Traffic()
      for instruction in self._computations[name].values():
        total += self._one(instruction, name)
      self._known[name] = total
    return self._known[name]

  def open_loops(self) -> list[Traffic]:
    """Returns one iteration of each entry loop without a trip count."""
    return [
      self.traffic(i.required("body"))
      for i in self._computations[self.entry].values()
      if i.opcode == "while" and self._trips(i) is None
    ]

  def _one(self, i: Instruction, where: str) -> Traffic:
    if i.opcode == "while":
      trips = self._trips(i)
      body = self.traffic(i.required("body")).repeated(trips or 1)
      if trips is None:
        body += Traffic(unknown_loops=(i.name,))
      return body
    if i.opcode == "conditional":
      branches = [self.traffic(name) for name in _branches(i)]
      return max(branches, key=lambda t: (t.flops, t.hbm))
    if i.opcode == "call":
      return self.traffic(i.required("to_apply"))
    if i.opcode == "async-start" and _SPARSE_CORE in i.rest:
      # Its operands may follow at an update; the callee has all.
      return self.traffic(i.required("calls")).as_started()
    total = Traffic(
      hbm=self._hbm(i, where),
      flops=self._flops(i, where),
      network=self._network(i, where),
    )
    called = i.attribute("calls") or i.called()
    if called:
      # Inside a fusion only FLOPs and collectives count: no HBM traffic.
      inner = self.traffic(called)
      total += dataclasses.replace(inner, hbm=0.0)
    collective = self._collective(i, where)
    if collective:
      total += Traffic(collectives=(collective,))
    return total

  def _trips(self, i: Instruction) -> int | None:
    """Returns the trip count of a loop from 0 to a constant, or None.

    None also if the condition is more than one comparison: the loop may end
    earlier.
    """
    condition = self._computations[i.required("condition")]
    root = next(c for c in condition.values() if c.root)
    if root.opcode == "fusion":
      fused = self._computations[root.required("calls")]
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
    """Returns the increment of the loop counter: 2 for an unrolled body."""
    root = next(c for c in condition.values() if c.root)
    counters = [
      int(condition[name].required("index"))
      for name in root.operands
      if name in condition and condition[name].opcode == "get-tuple-element"
    ]
    body = self._computations[i.required("body")]
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
      fused = self._computations[i.required("calls")]
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
    # Passed-through values cost nothing, in-flight collectives included.
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
    """Returns the bytes that a fusion reads of a value: slices or all."""
    if fused[name].root:
      return whole  # The caller uses the entire value.
    read = 0.0
    for u in fused.values():
      if name not in u.operands:
        continue
      first = u.operands[0] == name
      if u.opcode in ("dynamic-slice", "slice", "gather") and first:
        read += sum(a.bytes for a in u.arrays)
      elif u.opcode == "dynamic-update-slice" and first:
        pass  # In place: the rest is not copied.
      elif u.opcode == "bitcast" or "operand_aliasing" in u.rest:
        # A fusion that aliases its operand changes the tiling as it reads.
        read += self._read(fused, u.name, whole)
      elif u.opcode == "fusion":
        inner = self._computations[u.required("calls")]
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
      axes = i.match(r"lhs_contracting_dims=\{([\d,]*)\}")[1]
      inner = math.prod(left[int(a)] for a in axes.split(",") if a)
      return 2.0 * i.arrays[0].size * inner
    if i.opcode == "convolution":
      return convolution_flops(
        i, *(self._arrays(where, name)[0].shape for name in i.operands)
      )
    return 0.0

  def _network(self, i: Instruction, where: str) -> float:
    # Between slices a collective is a transfer to the host and back.
    if i.opcode != "send" or "xla_megascale_runtime" not in i.rest:
      return 0.0
    return float(sum(a.bytes for a in self._arrays(where, i.operands[0])))

  def _collective(self, i: Instruction, where: str) -> Collective | None:
    kind = i.opcode.removesuffix("-start")
    if kind not in _COLLECTIVES:
      return None
    if i.attribute("channel_id") in self._started and where not in self._starts:
      return None  # Counted at the start of the collective.
    started = i.opcode.endswith("-start") or where in self._starts
    operands = [a for n in i.operands for a in self._arrays(where, n)]
    given = sum(a.bytes for a in operands)
    if kind == "collective-permute":
      listed = re.search(r"source_target_pairs=\{(.*?\})\}", i.rest)
      members = pairs(listed[1]) if listed else ()
      return Collective(kind, members, 1, float(given), started)
    members = groups(i.rest, self._partitions)
    size = len(members[0])
    share = {
      "all-gather": size - 1,  # the shards of all others
      "all-reduce": 2 * (size - 1) / size,  # reduce-scatter, then all-gather
      "reduce-scatter": (size - 1) / size,
      "all-to-all": (size - 1) / size,
    }[kind]
    return Collective(kind, members, 1, given * share, started)


def _parameters(fused: dict[str, Instruction]) -> dict[int, str]:
  """Returns {parameter number: name} of a fusion."""
  return {
    int(i.rest.split(")")[0]): i.name
    for i in fused.values()
    if i.opcode == "parameter"
  }


def _written(i: Instruction) -> tuple[Array, ...]:
  # An asynchronous start also returns its operand and flags.
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
  return iter((i.required("true_computation"), i.required("false_computation")))
