"""The config of a run as frozen dataclasses.

`configs/*.py` return a ConfigDict, which command lines override. `resolve`
reads it once; all code below takes these classes. Their fields are those of
`configs/base.py`, which documents each.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from fusar_jax.hf.coverage import Differences

Rules = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Data sets and batches: `config.data`."""

  train: str
  eval: str
  max_length: int
  buckets: tuple[int, ...]
  answer_buckets: tuple[int, ...]
  patch_buckets: tuple[int, ...]
  pack_length: int
  pack_by_image: bool
  pool_batches: int
  num_workers: int
  loss_weighting: str
  anchors: str
  anchor_grid: int
  cell_weight: float


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW and its schedule: `config.optimizer`."""

  learning_rate: float
  warmup_steps: int
  warmup_ratio: float
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float
  rates: Rules


@dataclasses.dataclass(frozen=True)
class DtypeConfig:
  """Dtypes of activations and frozen parameters: `config.dtype`."""

  compute: str
  frozen: str


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """One run; shapes in `model` that are None come from the base."""

  init: str
  adapter: str
  tokenizer: str
  seed: int
  model: Mapping[str, Any]
  trainable: Rules
  data: DataConfig
  batch_size: int
  accumulation: int
  epochs: int
  steps: int
  optimizer: OptimizerConfig
  offload_optimizer: bool
  mesh: str | Mapping[str, Any]
  dtype: DtypeConfig
  remat: str
  attention: str
  head_chunk: int
  log_every_steps: int
  eval_every_steps: int
  save_every_steps: int
  keep: int
  keep_best_by: str
  patience: int
  skip_nonfinite: int
  profile_at_step: int
  profile_steps: int
  compile_cache: str

  def to_json(self) -> dict[str, Any]:
    """Returns nested JSON values, as `config.json` stores them."""
    return json.loads(json.dumps(dataclasses.asdict(self)))


_PARTS = {
  "data": DataConfig,
  "optimizer": OptimizerConfig,
  "dtype": DtypeConfig,
}


def resolve(config: ConfigDict) -> RunConfig:
  """Returns the config of a run, checked.

  Raises:
    ValueError: fields are missing or unknown, numbers are out of range, or
      options contradict each other; lists all of a kind.
  """
  differences = Differences()
  resolved: RunConfig = _build(
    RunConfig, config.to_dict(), "config", differences
  )
  if differences:
    raise ValueError(
      f"the config is not one of this version:\n{differences}\n"
      "configs/base.py lists all fields."
    )
  _check_numbers(resolved)
  _check_selection(resolved)
  return resolved


def _build(kind, values: Mapping, where: str, differences: Differences) -> Any:
  fields = {field.name for field in dataclasses.fields(kind)}
  for name in sorted(fields - {*values}):
    differences.add("missing", f"{where}.{name}")
  for name in sorted({*values} - fields):
    differences.add("unexpected", f"{where}.{name}")
  if differences:
    return None
  return kind(
    **{
      name: _build(_PARTS[name], value, f"{where}.{name}", differences)
      if name in _PARTS
      else _frozen(value)
      for name, value in values.items()
    }
  )


def _frozen(value: Any) -> Any:
  """Returns lists as tuples."""
  if isinstance(value, (list, tuple)):
    return tuple(map(_frozen, value))
  return value


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
  "model.lora.dropout",
  "optimizer.b1",
  "optimizer.b2",
  "optimizer.warmup_ratio",
)


def _check_numbers(config: RunConfig) -> None:
  """A negative learning rate or alpha would train without an error."""
  wrong = []
  for name, low, allows_low, high in _ranges():
    value = _at(config, name)
    if value is None:
      continue
    if isinstance(value, bool) or not isinstance(value, (int, float)):
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
  size = config.model["image_size"]
  if size is not None and not min(size) > 0:
    wrong.append(f"  config.model.image_size is {size}; expected pixels")
  if wrong:
    raise ValueError("numbers out of range:\n" + "\n".join(wrong))


def _ranges() -> Iterator[tuple[str, int, bool, int | None]]:
  """Yields (name, low, whether low itself is allowed, high)."""
  yield from ((name, low, True, None) for name, low in _LEAST.items())
  yield from ((name, 0, False, None) for name in _POSITIVE)
  yield from ((name, 0, True, 1) for name in _SHARES)


def _at(config: RunConfig, name: str) -> Any:
  """Returns the value of a field; None if the model lacks that part."""
  first, *rest = name.split(".")
  value = getattr(config, first)
  for part in rest:
    if value is None:
      return None
    value = value[part] if isinstance(value, Mapping) else getattr(value, part)
  return value


def _check_selection(config: RunConfig) -> None:
  """Options that would do nothing together."""
  if config.patience and not config.keep_best_by:
    raise ValueError(
      f"config.patience is {config.patience}, but config.keep_best_by names no"
      " metric to wait for; set it to eval_loss."
    )
  if config.keep_best_by and not config.data.eval:
    raise ValueError(
      f"config.keep_best_by is {config.keep_best_by}, but nothing is evaluated:"
      " config.data.eval is empty; name a manifest."
    )
