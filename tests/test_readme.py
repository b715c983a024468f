"""Commands and flags in README and docs/ exist."""

import ast
import contextlib
import io
import re
import runpy
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

ROOT = Path(__file__).resolve().parent.parent
PAGES = "\n".join(
  path.read_text(encoding="utf-8")
  for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
)


def blocks(language: str) -> list[str]:
  return re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.M | re.S)


def commands() -> list[list[str]]:
  """Returns the commands of all bash blocks, without comments."""
  text = "\n".join(blocks("bash")).replace("\\\n", " ")
  found = (shlex.split(line, comments=True) for line in text.splitlines())
  return [_plain(words) for words in found if words]


def _plain(words: list[str]) -> list[str]:
  """Removes environment settings before the command."""
  while words and re.fullmatch(r"\w+=.*", words[0]):
    words = words[1:]
  return words


OURS = [
  words
  for words in commands()
  if words[:2] == ["python", "-m"] and words[2].startswith("fusar_jax.")
]
MADE = sorted({w for words in commands() if words[0] == "make" for w in words})


def test_there_are_commands():
  assert OURS
  assert "test" in MADE
  assert "demo" in MADE


@pytest.mark.parametrize("target", [w for w in MADE if w != "make"])
def test_targets_of_make_exist(target):
  assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(
  "module", sorted({words[2] for words in OURS} - {"fusar_jax.train"})
)
def test_flags_are_known(module, monkeypatch):
  told = _help(module, monkeypatch)
  known = set(re.findall(r"--[a-z][\w-]*", told))
  given = {
    word.partition("=")[0]
    for words in OURS
    if words[2] == module
    for word in words[3:]
    if word.startswith("--")
  }
  assert given <= known


def _help(module: str, monkeypatch) -> str:
  """Returns the output of --help, in this process where possible."""
  if module == "fusar_jax.plan":  # Sets the environment, defines absl's flags.
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.check_output(command, text=True, cwd=ROOT)
  monkeypatch.setattr(sys, "argv", [module, "--help"])
  monkeypatch.setattr(signal, "signal", lambda *_: None)
  printed = io.StringIO()
  with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
    warnings.simplefilter("ignore")  # Runs a module that was imported before.
    with pytest.raises(SystemExit) as end:
      runpy.run_module(module, run_name="__main__")
  assert not end.value.code
  return printed.getvalue()


@pytest.mark.parametrize(
  "words",
  [words for words in OURS if words[2] == "fusar_jax.train"],
  ids=lambda words: " ".join(words[3:5]),
)
def test_train_commands_are_read(words, monkeypatch):
  """The config file loads and accepts each override."""
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(sys, "argv", words[2:])  # Read by config_flags.
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config", lock_config=True, flag_values=values
  )
  flags.DEFINE_string("workdir", None, "", flag_values=values)
  assert values(sys.argv) == words[2:3]
  assert values.config.model
  assert values.workdir


@pytest.mark.parametrize("code", blocks("python"))
def test_python_can_be_read(code):
  ast.parse(code)


@pytest.mark.parametrize(
  "path", sorted(set(re.findall(r"configs/\w+\.py", PAGES)))
)
def test_configs_exist(path):
  assert (ROOT / path).is_file()
