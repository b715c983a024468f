"""Command lines that take a config: `--config FILE.py:SWITCHES --config.x=...`.

absl and ml_collections parse the flags. A missing config file, an unknown
switch or field, or a value of a wrong type prints one line on stderr and exits
with code 1, without a traceback. Imports no JAX, so errors and `--help` are
fast.
"""

import difflib
import os
import re
import sys
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from fusar_jax import config_reference
from fusar_jax.config import CONFIGS, RENAMED, load_module, stage_files

# Fields of `config.mesh` before it became a single field.
_MESH = ("data", "fsdp", "tensor", "auto")


def define_config(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
  """Defines `--config`, whose value is a locked ConfigDict."""
  holder = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config of a stage and its switches, e.g. configs/stage1.py:model=tiny.",
    flag_values=values,
    lock_config=True,
  )
  values[holder.name].parser = _Parser()
  return holder


def show_help(argv: list[str], about: str) -> None:
  """Prints the help and exits with code 0, if argv contains a help flag.

  Args:
    argv: of the command.
    about: docstring of the command.
  """
  if not {"--help", "-h", "-help", "--helpshort", "--helpfull"} & set(argv):
    return
  lines = [about.strip(), "", "flags:"]
  ours = flags.FLAGS.get_flags_for_module(argv[0])
  for flag in [flags.FLAGS["config"], *ours]:
    name = flag.name.replace("_", "-")
    lines += config_reference.entry(f"--{name}", flag.help)
  print("\n".join([*lines, "", config_reference.text()]))
  sys.exit(0)


def parse(
  argv: list[str],
  required: tuple[str, ...],
  values: flags.FlagValues = flags.FLAGS,
) -> list[str]:
  """Parses all flags; on errors prints one line on stderr and exits with 1.

  Flag names may contain dashes for underscores, as in `--samples-per-chip`.

  Args:
    argv: of the command, with its name first.
    required: names of flags without which parsing fails.
    values: the flags to assign.
  """
  try:
    # In place: ml_collections reads overrides of the config from sys.argv.
    argv[:] = [_renamed(arg) for arg in argv]
    rest = values([_joined(arg) for arg in argv])
    missing = [f"--{name}" for name in required if values[name].value is None]
    if missing:
      raise ValueError(f"{' and '.join(missing)} must be given.")
    if rest[1:]:
      raise ValueError(f"unexpected arguments: {' '.join(rest[1:])}.")
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
    # Not str(e): a KeyError puts its message in quotes.
    text = str(e.args[0] if len(e.args) == 1 else e)
    if isinstance(e, AttributeError):
      near = re.search('Did you mean "(.+)" instead of "(.+)"[?]', text)
      name, guess = (near[2], near[0]) if near else (text.strip("\"'"), "")
      text = f"the config has no field {name!r}. {guess}"
    print(
      f"{type(e).__name__}: {' '.join(text.split())} (--help lists flags,"
      " configs and fields)",
      file=sys.stderr,
    )
    sys.exit(1)
  return rest


def _joined(arg: str) -> str:
  """Replaces dashes in a flag's name by underscores."""
  if not arg.startswith("--") or arg.startswith("--config"):
    return arg
  name, equals, value = arg[2:].partition("=")
  return f"--{name.replace('-', '_')}{equals}{value}"


def _renamed(arg: str) -> str:
  """Replaces the old name of a model field in an override."""
  field = re.match(r"(--config\.model\.(?:vision|decoder)\.)(\w+)(.*)", arg)
  if not field or field[2] not in RENAMED:
    return arg
  new = field[1] + RENAMED[field[2]]
  print(f"{field[1]}{field[2]} is deprecated; use {new}.", file=sys.stderr)
  return new + field[3]


class _Parser(flags.ArgumentParser):
  """Loads a config file; each error in it is a ValueError of one line."""

  def parse(self, path: str) -> ConfigDict:
    file, _, switches = path.partition(":")
    if not Path(file).is_file():
      raise ValueError(_no_file(file))
    try:
      module = load_module(file)
      if Path(file).samefile(CONFIGS / "base.py"):
        raise ValueError("what the stages share, and none itself.")
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
    _adapt_mesh(config)
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


def _adapt_mesh(config: ConfigDict) -> None:
  """Converts `config.mesh` of old files, or for deprecated flags."""
  if "mesh" not in config:
    return
  names = [arg.lstrip("-").partition("=")[0] for arg in sys.argv]
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
