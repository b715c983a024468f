"""The console script: `fusar COMMAND ...` is `python -m fusar_jax.COMMAND ...`.

Imports the chosen command only: the list of commands is read from the sources.
"""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from fusar_jax._version import __version__

# In the order of a typical project.
COMMANDS = (
  "prepare",
  "simulate",
  "doctor",
  "plan",
  "train",
  "predict",
  "interpret",
  "serve",
  "evaluate",
  "convert",
  "demo",
  "study",
  "bench",
)


def listing() -> str:
  """Returns the list of commands with the first lines of their docstrings."""
  lines = ["usage: fusar COMMAND [--help | ...]", ""]
  for name in COMMANDS:
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    about = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    lines.append(f"  {name:9} {about}")
  return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
  """Runs a command; returns its exit code, 2 for an unknown command."""
  name, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
  if name in COMMANDS:
    return importlib.import_module(f"fusar_jax.{name}").main(arguments)
  if name in ("--help", "-h"):
    print(listing())
    return 0
  if name == "--version":
    print(f"fusar-jax {__version__}")
    return 0
  if name:
    close = difflib.get_close_matches(name, COMMANDS, 1)
    guess = f" Did you mean {close[0]}?" if close else ""
    print(f"fusar: error: unknown command {name!r}.{guess}\n", file=sys.stderr)
  print(listing(), file=sys.stderr)
  return 2


if __name__ == "__main__":
  sys.exit(main())
