"""Recipes: a config of the repository, values for some fields, and a folder.

For commands that train several runs in one process and print, for each, the
equivalent command:
  python -m fusar_jax.train --config configs/NAME.py:recipe=tiny,model=init \\
      --config.KEY=VALUE ... --workdir DIR
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fusar_jax.config import CONFIGS, load_module
from fusar_jax.training import provenance
from fusar_jax.training.loop import train_and_evaluate

_CONFIGS = CONFIGS
# The recipe of a small model; its shapes from config.init.
_ARG = "recipe=tiny,model=init"


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """One run.

  Attributes:
    name: of the config, `configs/NAME.py`.
    values: fields of it, by dotted names, "data.train".
    workdir: the run's folder.
  """

  name: str
  values: Mapping[str, Any]
  workdir: Path

  def config(self) -> ConfigDict:
    """Returns the config, locked, with the values in it.

    Raises:
      FileNotFoundError: as `get_config`.
      KeyError, TypeError: a field that the config does not have, or a value of
        another type.
    """
    config = get_config(self.name, _ARG)
    config.update_from_flattened_dict(self.values)  # Locked: no new fields.
    return config

  def arguments(self) -> list[str]:
    """Returns the arguments of `train` that do the same."""
    return [
      *("--config", f"configs/{self.name}.py:{_ARG}"),
      *(f"--config.{key}={value}" for key, value in self.values.items()),
      *("--workdir", str(self.workdir)),
    ]

  def finished(self) -> bool:
    """Returns whether the workdir contains the last of the config's `steps`."""
    return provenance.latest_step(self.workdir) == self.config().steps

  def train(self) -> None:
    """Trains the run, or resumes it.

    Raises:
      RuntimeError: asked to stop; it has saved, and can be resumed.
      OSError, ValueError, FloatingPointError: as `train_and_evaluate`.
    """
    if train_and_evaluate(self.config(), self.workdir).preempted:
      raise RuntimeError(
        f"{self.workdir} was stopped; the same command resumes it."
      )


def get_config(name: str, arg: str = "") -> ConfigDict:
  """Returns a config of the repository, `configs/NAME.py:ARG`.

  Raises:
    FileNotFoundError: the package was installed without its repository.
  """
  path = _CONFIGS / f"{name}.py"
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} not found: this command needs the repository, whose configs are"
      " not installed with the package. Run it from a checkout (pip install -e"
      " .)."
    )
  return load_module(path).get_config(arg)
