"""The option `--config FILE.py:SWITCHES` of `train` and `plan`.

`--config.FIELD=VALUE` overrides a field; ml_collections parses the value by the
field's type. A missing file, an unknown switch or field and a value of a wrong
type are usage errors of one line. Imports no JAX.
"""

import argparse
import difflib
import os
import re
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fusar_jax import config_reference
from fusar_jax.command_line import Parser
from fusar_jax.config import CONFIGS, RENAMED, load_module, stage_files

# Fields of `config.mesh` before it became a single field.
_MESH = ("data", "fsdp", "tensor", "auto")


class ConfigParser(Parser):
  """Parser of a command with `--config`; the parsed value is a ConfigDict.

  `--help` also lists the stages, models, switches and fields.
  """

  def __init__(self, command: str, about: str | None, **options):
    super().__init__(command, about, **options)
    self.add_argument(
      "--config",
      required=True,
      metavar="FILE",
      help="config of a stage and its switches, configs/stage1.py:model=tiny;"
      " --config.FIELD=VALUE overrides a field",
    )

  def format_help(self) -> str:
    return f"{super().format_help()}\n{config_reference.text()}\n"

  def parse_args(self, args=None, namespace=None) -> argparse.Namespace:
    args = sys.argv[1:] if args is None else args
    overrides, rest = _split(args)
    parsed = super().parse_args(rest, namespace)
    try:
      parsed.config = read_config(parsed.config, overrides)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
      self.error(_describe(e))
    return parsed


def read_config(path: str, overrides: list[str]) -> ConfigDict:
  """Returns a locked config.

  Args:
    path: FILE.py or FILE.py:SWITCHES.
    overrides: "--config.FIELD=VALUE", or the value as the next item.

  Raises:
    absl.flags.Error, AttributeError, KeyError, TypeError, ValueError: the file,
      a switch, a field or a value is invalid.
  """
  values = flags.FlagValues()
  argv = ["config", f"--config={path}", *map(_current_field, overrides)]
  holder = config_flags.DEFINE_config_file(
    "config", flag_values=values, lock_config=True, sys_argv=argv
  )
  values[holder.name].parser = _FileParser(argv)
  if rest := values(argv)[1:]:
    raise ValueError(f"unexpected arguments: {' '.join(rest)}.")
  return values.config


def _split(args: list[str]) -> tuple[list[str], list[str]]:
  """Separates overrides of the config, with their values, from the rest."""
  overrides, rest = [], []
  into = rest
  for arg in args:
    if re.match(r"--?(no)?config\.", arg):
      # A value follows as the next argument, unless "=" is in this one.
      overrides.append(arg)
      into = rest if "=" in arg else overrides
    else:
      (rest if arg.startswith("--") else into).append(arg)
      into = rest
  return overrides, rest


def _current_field(arg: str) -> str:
  """Replaces the old name of a model field in an override."""
  field = re.match(r"(--config\.model\.(?:vision|decoder)\.)(\w+)(.*)", arg)
  if not field or field[2] not in RENAMED:
    return arg
  new = field[1] + RENAMED[field[2]]
  print(f"{field[1]}{field[2]} is deprecated; use {new}.", file=sys.stderr)
  return new + field[3]


def _describe(error: Exception) -> str:
  # Not str(error): a KeyError puts its message in quotes.
  text = str(error.args[0] if len(error.args) == 1 else error)
  if isinstance(error, AttributeError):
    near = re.search('Did you mean "(.+)" instead of "(.+)"[?]', text)
    name, guess = (near[2], near[0]) if near else (text.strip("\"'"), "")
    text = f"the config has no field {name!r}. {guess}"
  return text


class _FileParser(flags.ArgumentParser):
  """Loads a config file; each error in it is a ValueError of one line."""

  def __init__(self, argv: list[str]):
    self._argv = argv

  def parse(self, path: str) -> ConfigDict:
    file, _, switches = path.partition(":")
    if not Path(file).is_file():
      raise ValueError(_no_file(file))
    try:
      module = load_module(file)
      if Path(file).samefile(CONFIGS / "base.py"):
        raise ValueError("this file holds what the stages share; give a stage.")
      config = module.get_config(switches or None)
    except (ValueError, OSError) as error:
      raise ValueError(str(error)) from None
    except Exception as error:
      at = traceback.extract_tb(error.__traceback__)[-1]
      raise ValueError(
        f"{type(error).__name__} in {at.filename}, line {at.lineno}: {error}"
      ) from None
    if not isinstance(config, ConfigDict):
      raise ValueError(f"get_config returns {config!r}, expected a ConfigDict.")
    _adapt_mesh(config, self._argv)
    return config.lock()


def _no_file(file: str) -> str:
  """Describes a path that is no config file, and lists the configs."""
  here = Path.cwd() == CONFIGS.parent
  known = [
    os.path.relpath(path) if here else str(path)
    for path in stage_files().values()
  ]
  name = Path(file).stem
  close = difflib.get_close_matches(name, stage_files(), 1)
  guess = [path for path in known if close and Path(path).stem == close[0]]
  return (
    ("a folder, expected a file." if Path(file).is_dir() else "no such file.")
    + (f" Did you mean {guess[0]}?" if guess else "")
    + (f" Configs: {', '.join(known)}." if known else "")
  )


def _adapt_mesh(config: ConfigDict, argv: list[str]) -> None:
  """Converts `config.mesh` of old files, or for deprecated flags."""
  if "mesh" not in config:
    return
  names = [arg.lstrip("-").partition("=")[0] for arg in argv]
  old = [axis for axis in _MESH if f"config.mesh.{axis}" in names]
  with config.unlocked(), config.ignore_type():
    if old and isinstance(config.mesh, str):
      print(
        f"--config.mesh.{old[0]} is deprecated; use --config.mesh=auto or"
        " --config.mesh=DATA,FSDP,TENSOR.",
        file=sys.stderr,
      )
      config.mesh = ConfigDict(
        {"data": -1, "fsdp": 1, "tensor": 1, "auto": False}
      )
    elif "config.mesh" in names and isinstance(config.mesh, ConfigDict):
      config.mesh = "auto"
