"""The config of a run as frozen dataclasses.

`configs/*.py` return a ConfigDict, which command lines override. `resolve`
reads it once; all code below takes these classes. Their fields are those of
`configs/base.py`, which documents each.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fusar_jax.hf.coverage import Differences
from fusar_jax.training import config_ranges

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
  visual_cache_gb: float
  chip_shift: float


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
  metric_writers: str
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
  config_ranges.check_numbers(resolved)
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
