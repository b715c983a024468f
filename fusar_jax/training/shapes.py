"""Shapes of a run's model, from its config or from its base."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax import config as config_lib
from fusar_jax.hf.folders import TINY_BASE, resolve
from fusar_jax.model.config import FusarConfig
from fusar_jax.training import parameters as parameters_lib
from fusar_jax.training.provenance import Source
from fusar_jax.training.run_config import RunConfig


def resolve_model(
  values: Mapping[str, Any], base: Source, workdir: Path
) -> FusarConfig:
  """Returns the model of the run; shapes that are None come from the base.

  Raises:
    ValueError: shapes differ from those of the base; lists all.
  """
  found = parameters_lib.source_config(base, workdir)
  return config_lib.from_dict(_filled(values, found, base.path))


def with_shapes(config: RunConfig) -> RunConfig:
  """Returns the config with the shapes of config.init in config.model.

  Reads only config.json of a local folder; weights may be absent. Without the
  folder, the shapes of a preset are used unchanged.

  Raises:
    ValueError: model=init without a local folder, or shapes differ.
    OSError: as `read_shapes`.
  """
  path, found = Path(config.init).expanduser(), None
  if config.init and (path.is_dir() or config.init == TINY_BASE):
    found = parameters_lib.read_shapes(resolve(config.init))
  values = _filled(config.model, found, config.init)
  return dataclasses.replace(config, model=values)


def _filled(
  values: Mapping[str, Any], found: FusarConfig | None, where: str
) -> Mapping[str, Any]:
  """Returns config.model with None values filled from the base."""
  parts = ("vision", "decoder", "tokens")
  unknown = [name for name in parts if values[name] is None]
  if unknown and found is None:
    raise ValueError(
      f"config.model: {', '.join(unknown)} not given; with model=init,"
      " config.init must name a Hugging Face folder or a run"
      + (f", and {where!r} is no folder here." if where else ".")
    )
  if found is None:
    return values
  theirs = config_lib.to_dict(found)
  values = {**values, **{name: theirs[name] for name in unknown}}
  problems = [
    f"  config.model.{part}.{name} is {value}, the base has"
    f" {theirs[part][name]}"
    for part in parts
    for name, value in values[part].items()
    if _plain(theirs[part][name]) != _plain(value)
  ]
  if problems:
    raise ValueError(
      f"config.init {where}: weights of another model:\n"
      + "\n".join(problems)
      + "\nTo take the shapes of config.init, add model=init to the switches:"
      " `--config FILE.py:model=init`."
    )
  return values


def _plain(value):
  return list(value) if isinstance(value, (tuple, list)) else value
