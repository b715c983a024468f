"""Continuous batching: a row that has ended gives its slot to the next prompt.

A batch of fixed rows takes as long as its longest answer. Here S slots decode
together (`inference.slots`), and when enough of them have ended, the next group
of prompts takes their places.

`ContinuousBatch` takes prompts at any time and can be stopped after any number
of steps, as a server needs it; `generate_rows` answers a list of them.

G prompts of a group, S slots.
"""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from jax.sharding import Mesh

from fusar_jax.inference import generation, prefix
from fusar_jax.inference import slots as slots_lib
from fusar_jax.inference.generation import (
  Constraint,
  Decoding,
  DecodingInputs,
)
from fusar_jax.inference.mesh import compiled, put_rows
from fusar_jax.inference.prefix import CachedPrefix
from fusar_jax.model.batch import Batch
from fusar_jax.model.fusar_gpt import FusarGPT

_FOREVER = 2**31 - 1


class Group(NamedTuple):
  """Prompts that take their slots together.

  Attributes:
    rows: their numbers, at most G.
    batch: G padded prompts, of the same shapes in every group; those beyond
      `rows` are ignored.
    constraint: grammar of the G answers, in all groups or in none.
  """

  rows: Sequence[int]
  batch: Batch
  constraint: Constraint | None = None


@dataclasses.dataclass
class Usage:
  """What answers have cost, summed over calls.

  Attributes:
    tokens: new tokens, end tokens included.
    slot_steps: positions computed for them: S in a decoding step, whether its
      slots hold an answer or not, and G for the first tokens of a group. Never
      less than `tokens`.
  """

  tokens: int = 0
  slot_steps: int = 0


@dataclasses.dataclass(frozen=True)
class RowOptions:
  """Options of one answer among others.

  Attributes:
    max_new_tokens: None: that of the batch, which is also the maximum.
    temperature: 0 is greedy; above 0 needs a batch that samples.
    seed: sampling seed, uint32.
  """

  max_new_tokens: int | None = None
  temperature: float = 0.0
  seed: int = 0


class ContinuousBatch:
  """S slots that decode together; not safe for threads.

  Attributes:
    free: number of empty slots.
    usage: cost of the answers that `run` has returned.
  """

  def __init__(
    self,
    model: FusarGPT,
    params: dict,
    slots: int,
    decoding: Decoding,
    mesh: Mesh | None = None,
    usage: Usage | None = None,
    *,
    samples: bool = False,
  ):
    """See the attributes.

    Args:
      model, params, mesh: as `generation.generate`.
      slots: S, rows that decode together.
      decoding: options; `temperature` and `seed` are those of the rows.
      usage: takes the costs; None: a new one.
      samples: rows may have a temperature.

    Raises:
      ValueError: `decoding` has a temperature.
    """
    if decoding.temperature:
      raise ValueError("continuous batches are greedy; set temperature 0.")
    self.usage = usage or Usage()
    self._model, self._params, self._mesh = model, params, mesh
    self._weights = slots_lib.apart(model, params, mesh)
    self._decoding, self._slots, self._samples = decoding, slots, samples
    self._limits = np.full(slots, decoding.max_new_tokens, np.int32)
    self._temperatures = np.zeros(slots, np.float32)
    self._seeds = np.zeros(slots, np.uint32)
    self._held: dict[int, Hashable] = {}  # slot -> row
    self._table: Constraint | None = None
    self._capacity = min(generation.FIRST, decoding.max_new_tokens)
    self._state: slots_lib.Slots | None = None

  @property
  def free(self) -> int:
    return self._slots - len(self._held)

  def read_prefix(self, batch: Batch) -> CachedPrefix:
    """Reads the first tokens of G prompts, for any number of `add`.

    Args:
      batch: padded; ends after the last visual token or later.
    """
    program = compiled(prefix.read_prefix, self._mesh, static=1)
    return program(self._model, self._params, put_rows(batch, self._mesh))

  def add(
    self,
    rows: Sequence[Hashable],
    batch: Batch,
    constraint: Constraint | None = None,
    options: Sequence[RowOptions] | None = None,
    cached: CachedPrefix | None = None,
  ) -> None:
    """Reads prompts into empty slots, and chooses their first tokens.

    Args:
      rows: names of the answers, at most G.
      batch: G padded prompts; those beyond `rows` are ignored. Each of its
        shapes is a program.
      constraint: grammar of the G answers, with the same table for all rows
        that decode together.
      options: of each row; None: the defaults.
      cached: what precedes the G prompts, see `read_prefix`; None: nothing.

    Raises:
      ValueError: there are fewer empty slots than G.
    """
    size, length = batch.input_ids.shape
    if cached is not None:
      length += cached.input_ids.shape[1]
    if size > self.free:
      raise ValueError(
        f"{self.free} slots cannot hold a group of {size} prompts."
      )
    slots = [slot for slot in range(self._slots) if slot not in self._held]
    slots = slots[: len(rows)]
    for slot, own in zip(slots, options or [RowOptions()] * len(rows)):
      most = self._decoding.max_new_tokens
      self._limits[slot] = min(own.max_new_tokens or most, most)
      self._temperatures[slot], self._seeds[slot] = own.temperature, own.seed
    if not self._held:
      self._state = self._fitting(length)
    width = length
    if self._state is not None:
      width = self._state.prompts.seen.shape[1]
      if length > width:
        self._state = compiled(slots_lib.lengthened, self._mesh, static=1)(
          length - width, self._state
        )
        width = length
    self._table = constraint
    # Those beyond the rows have a slot that does not exist.
    where = np.full(size, self._slots, np.int32)
    where[: len(rows)] = slots
    new = compiled(slots_lib.begin, self._mesh, static=3)(
      self._model,
      self._rules,
      width - length,
      self._params,
      put_rows(batch, self._mesh),
      cached,
      self._inputs(constraint, np.minimum(where, self._slots - 1)),
    )
    if self._state is None:
      self._state = slots_lib.empty(new, self._slots)
    self._state = compiled(slots_lib.insert, self._mesh, donate=(0,))(
      self._state, new, where
    )
    self.usage.slot_steps += size
    self._held |= dict(zip(slots, rows))

  def run(
    self, enough: int = 1, turns: int = _FOREVER
  ) -> dict[Hashable, list[int]]:
    """Decodes until so many slots are empty or have ended.

    Args:
      enough: number of slots, empty ones included.
      turns: maximum number of steps.

    Returns:
      Row -> new tokens, end token included, of the answers that have ended;
      their slots are empty.
    """
    if self._state is None or not self._held:
      return {}
    state, taken = compiled(slots_lib.run, self._mesh, static=2, donate=(5,))(
      self._model,
      self._rules,
      self._params,
      self._weights,
      self._inputs(self._table, slice(None)),
      self._state,
      np.int32(enough),
      np.int32(turns),
    )
    self._state = state
    self.usage.slot_steps += self._slots * int(taken)
    ended, steps = np.asarray(state.ended), np.asarray(state.step)
    done = [slot for slot in self._held if ended[slot]]
    self.usage.tokens += sum(int(steps[slot]) for slot in done)
    answers = self._read(done) if done else {}
    for slot in done:
      del self._held[slot]
    if any(steps[slot] >= self._capacity for slot in self._held):
      more = min(self._capacity, self._decoding.max_new_tokens - self._capacity)
      self._state = compiled(slots_lib.widened, self._mesh, static=1)(
        more, state
      )
      self._capacity += more
    return answers

  def so_far(self) -> dict[Hashable, list[int]]:
    """Returns row -> new tokens, of the answers that have not ended."""
    return self._read(list(self._held)) if self._held else {}

  def cancel(self, row: Hashable) -> None:
    """Empties the slot of a row; nothing happens if it has none."""
    for slot, held in list(self._held.items()):
      if held == row and self._state is not None:
        del self._held[slot]
        ended = compiled(slots_lib.end, self._mesh)(
          self._state.ended, np.int32(slot)
        )
        self._state = dataclasses.replace(self._state, ended=ended)

  @property
  def _rules(self) -> Decoding:
    return dataclasses.replace(
      self._decoding, max_new_tokens=self._capacity, seed=0
    )

  def _inputs(self, constraint, slots) -> DecodingInputs:
    sampling = self._temperatures[slots] if self._samples else None
    return DecodingInputs(
      constraint, self._limits[slots], self._seeds[slots], sampling
    )

  def _read(self, slots: Sequence[int]) -> dict[Hashable, list[int]]:
    assert self._state is not None
    tokens = np.asarray(self._state.tokens)
    steps = np.asarray(self._state.step)
    return {
      self._held[slot]: tokens[slot, : steps[slot]].tolist() for slot in slots
    }

  def _fitting(self, length: int) -> slots_lib.Slots | None:
    """Returns the state if it suits prompts of this length; all are empty.

    Each step reads all columns: one long prompt or answer must not make those
    after it slow.
    """
    first = min(generation.FIRST, self._decoding.max_new_tokens)
    state = self._state
    if state is not None and (
      self._capacity > first or state.prompts.seen.shape[1] > 2 * length
    ):
      self._capacity, state = first, None
    return state


def generate_rows(
  model: FusarGPT,
  params: dict,
  groups: Iterable[Group],
  slots: int,
  decoding: Decoding,
  mesh: Mesh | None = None,
  usage: Usage | None = None,
) -> Iterator[dict[int, list[int]]]:
  """Yields row number -> new tokens, end token included, as answers end.

  Args:
    model, params, mesh: as `generation.generate`.
    groups: taken one by one when there are slots for them.
    slots: S, rows that decode together, at least G.
    decoding: options; greedy.
    usage: takes the cost of what has been yielded.

  Raises:
    ValueError: a temperature, or fewer slots than G.
  """
  batch = ContinuousBatch(model, params, slots, decoding, mesh, usage)
  waiting = iter(groups)
  group = next(waiting, None)
  while group is not None or batch.free < slots:
    size = 0 if group is None else len(group.batch.input_ids)
    if group is not None and (batch.free >= size or batch.free == slots):
      batch.add(group.rows, group.batch, group.constraint)
      group = next(waiting, None)
      continue
    # Answers are not held back, even if no prompt waits for their slots.
    few = min(slots, batch.free + max(slots // 4, 1))
    done = batch.run(size or few)
    if done:
      yield cast(dict[int, list[int]], done)
