"""`python -m fusar_jax COMMAND ...` runs `python -m fusar_jax.COMMAND ...`.

Without a command it lists the commands, without importing any of them.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

# In the order of a typical project.
COMMANDS = (
  "prepare",
  "simulate",
  "doctor",
  "plan",
  "train",
  "predict",
  "evaluate",
  "convert",
  "demo",
  "study",
  "bench",
)


def listing() -> str:
  """Returns the list of commands with the first lines of their docstrings."""
  lines = ["python -m fusar_jax COMMAND [--help | ...]", ""]
  for name in COMMANDS:
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    about = ast.get_docstring(ast.parse(source)).splitlines()[0]
    lines.append(f"  {name:9} {about}")
  return "\n".join(lines)


def main(argv: list[str]) -> int:
  """Runs the command in argv; returns an exit code if there is no command."""
  if argv[1:] and argv[1] in COMMANDS:
    sys.argv = argv[1:]
    # Like `python -m`: spawned child processes can import the module again.
    runpy.run_module(
      f"fusar_jax.{argv[1]}", run_name="__main__", alter_sys=True
    )
    return 0
  if {"--help", "-h"} & set(argv[1:2]):
    print(listing())
    return 0
  if argv[1:]:
    close = difflib.get_close_matches(argv[1], COMMANDS, 1)
    guess = f" Did you mean {close[0]}?" if close else ""
    print(f"unknown command {argv[1]!r}.{guess}\n", file=sys.stderr)
  print(listing(), file=sys.stderr)
  return 2


if __name__ == "__main__":
  sys.exit(main(sys.argv))
