"""Ranges of the numbers of a run's config.

A negative learning rate or alpha would train without an error.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from fusar_jax.training.run_config import RunConfig

# The least value of a number; all of them must be finite.
_LEAST = {
  "accumulation": 1,
  "batch_size": 1,
  "data.anchor_grid": 0,
  "data.cell_weight": 0,
  "data.max_length": 1,
  "data.num_workers": 0,
  "data.pack_length": 0,
  "data.pool_batches": 1,
  "data.visual_cache_gb": 0,
  "epochs": 0,
  "eval_every_steps": 0,
  "head_chunk": 1,
  "keep": 1,
  "log_every_steps": 1,
  "optimizer.warmup_steps": 0,
  "optimizer.weight_decay": 0,
  "patience": 0,
  "save_every_steps": 1,
  "skip_nonfinite": 0,
  "steps": 0,
}
_POSITIVE = (
  "model.lora.alpha",
  "model.tlm.sigma",
  "optimizer.clip_norm",
  "optimizer.eps",
  "optimizer.learning_rate",
)
# From 0 to below 1.
_SHARES = (
  "data.chip_shift",
  "model.lora.dropout",
  "optimizer.b1",
  "optimizer.b2",
  "optimizer.warmup_ratio",
)


def check_numbers(config: "RunConfig") -> None:
  """Raises ValueError that lists the numbers out of their range."""
  wrong = []
  for name, low, allows_low, high in _ranges():
    value = _at(config, name)
    if value is None:
      continue
    if not _is_number(value):
      wrong.append(f"  config.{name} is {value!r}; expected a number")
    elif not (
      math.isfinite(value)
      and (low <= value if allows_low else low < value)
      and (high is None or value < high)
    ):
      text = f"at least {low}" if allows_low else f"more than {low}"
      text += "" if high is None else f", less than {high}"
      wrong.append(f"  config.{name} is {value}; expected {text}")
  if not config.steps and not config.epochs:
    wrong.append("  config.steps and config.epochs are 0; set one of them")
  rates = config.optimizer.rates
  if not all(map(_is_rate, rates)):
    wrong.append(
      f"  config.optimizer.rates is {rates!r:.200}; expected pairs of a regex"
      ' and a factor of at least 0: (("tlm/.*", 10.0), (".*", 1.0))'
    )
  size = config.model["image_size"]
  if size is not None and not min(size) > 0:
    wrong.append(f"  config.model.image_size is {size}; expected pixels")
  if wrong:
    raise ValueError("numbers out of range:\n" + "\n".join(wrong))


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_rate(rule: Any) -> bool:
  return (
    isinstance(rule, (tuple, list))
    and len(rule) == 2
    and isinstance(rule[0], str)
    and _is_number(rule[1])
    and 0 <= rule[1] < math.inf
  )


def _ranges() -> Iterator[tuple[str, int, bool, int | None]]:
  """Yields (name, low, whether low itself is allowed, high)."""
  yield from ((name, low, True, None) for name, low in _LEAST.items())
  yield from ((name, 0, False, None) for name in _POSITIVE)
  yield from ((name, 0, True, 1) for name in _SHARES)


def _at(config: "RunConfig", name: str) -> Any:
  """Returns the value of a field; None if the model lacks that part."""
  first, *rest = name.split(".")
  value = getattr(config, first)
  for part in rest:
    if value is None:
      return None
    value = value[part] if isinstance(value, Mapping) else getattr(value, part)
  return value
