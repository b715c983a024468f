"""Mutation tests: plants each fault of `table.toml` and runs its tests.

Faults are planted in a copy of the project without external reference values.
The checkout stays unchanged, and a fault that is caught here is also caught in
a fresh clone. Results are cached by the hash of their inputs (mutant, file,
tests): an interrupted run resumes, and only changed inputs are tested again.

    python tests/mutants/run.py                    all; writes docs/mutants.md
    python tests/mutants/run.py --only "M-RoPE"    names that contain M-RoPE
    python tests/mutants/run.py --again            ignore cached results
"""

import argparse
import ast
import collections
import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("table.toml")
PAGE = ROOT / "docs" / "mutants.md"
KEPT = ROOT / ".cache" / "mutants.json"
# More than any test file takes; a fault may cause an endless wait.
LIMIT_SECONDS = 600
SURVIVED, CAUGHT = "survived", "caught"

INTRODUCTION = """\
# Planted faults

Each row is a fault planted in a copy of the package by `make mutants`
(`tests/mutants/table.toml` holds the edits), and the first test that fails with
it. The tests run as in a fresh clone, without reference values from outside. A
survivor is a gap in the tests. A fault is to be run again ("not run") when its
file or its tests have changed. An edit that no longer applies, because the code
has changed, fails `tests/mutants/test_table.py`.
"""


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One fault.

  Attributes:
    name: description of the fault.
    file: path within the package.
    old, new: the edit; `old` occurs once in the file.
    tests: paths within tests/ of files that should fail.
  """

  name: str
  file: str
  old: str
  new: str
  tests: tuple[str, ...]

  @property
  def path(self) -> Path:
    return Path("fusar_jax") / self.file

  def test_files(self) -> list[str]:
    return [f"tests/{test}" for test in self.tests]


def read_table(path: Path = TABLE) -> list[Mutant]:
  """Returns the mutants, in order.

  Raises:
    ValueError: a row whose fields differ from those of `Mutant`, or a
      duplicate name.
  """
  rows = tomllib.loads(path.read_text("utf-8"))["mutant"]
  fields = {field.name for field in dataclasses.fields(Mutant)}
  for row in rows:
    if set(row) != fields:
      raise ValueError(
        f"{path.name}: {row.get('name')!r} has the fields {sorted(row)},"
        f" expected {sorted(fields)}."
      )
  names = [row["name"] for row in rows]
  if twice := {name for name in names if names.count(name) > 1}:
    raise ValueError(f"{path.name}: more than one mutant named {twice}.")
  return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def apply(mutant: Mutant, text: str) -> str:
  """Returns the text of the file with the fault.

  Raises:
    ValueError: `old` does not occur exactly once, nothing changes, or the
      result is not valid Python.
  """
  found = text.count(mutant.old)
  if found != 1:
    raise ValueError(
      f"mutant {mutant.name!r}: its old text occurs {found} times in"
      f" {mutant.path}, expected once; update tests/mutants/table.toml:\n"
      f"{mutant.old}"
    )
  if mutant.old == mutant.new:
    raise ValueError(f"mutant {mutant.name!r} changes nothing.")
  changed = text.replace(mutant.old, mutant.new)
  try:
    ast.parse(changed)
  except SyntaxError as error:
    raise ValueError(f"mutant {mutant.name!r}: no Python: {error}") from None
  return changed


def problems(mutants: list[Mutant]) -> list[str]:
  """Returns the errors in the table, one string each."""
  found = []
  for mutant in mutants:
    try:
      apply(mutant, (ROOT / mutant.path).read_text("utf-8"))
    except (OSError, ValueError) as error:
      found.append(str(error))
    found += [
      f"mutant {mutant.name!r}: {path} is not there."
      for path in mutant.test_files()
      if not (ROOT / path).is_file()
    ]
  return found


def digest(mutant: Mutant) -> str:
  """Returns the hash of the mutant, its file and its tests."""
  parts = [json.dumps(dataclasses.asdict(mutant))]
  files = [mutant.path, *map(Path, mutant.test_files())]
  parts += [(ROOT / path).read_text("utf-8") for path in files]
  return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def copy_project(to: Path) -> None:
  """Copies tracked and untracked files, without those that git ignores."""
  listed = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  for name in filter(None, listed.split("\0")):
    if (ROOT / name).is_file():
      (to / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(ROOT / name, to / name)


def run_tests(project: Path, files: list[str]) -> tuple[str, str]:
  """Returns (CAUGHT or SURVIVED, the first test that failed).

  Raises:
    RuntimeError: no test ran, all were skipped, or pytest itself failed.
  """
  environment = os.environ | {
    "PYTHONPATH": str(project),
    "PYTHONDONTWRITEBYTECODE": "1",
    "FUSAR_SHARED": str(project / "nothing"),
  }
  # A shared cache compiles unchanged programs once for all mutants.
  environment.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax")
  )
  command = [sys.executable, "-m", "pytest", "-x", "-n", "0"]
  try:
    done = subprocess.run(
      [*command, "-p", "no:cacheprovider", *files],
      cwd=project,
      env=environment,
      capture_output=True,
      text=True,
      timeout=LIMIT_SECONDS * len(files),
    )
  except subprocess.TimeoutExpired:
    return CAUGHT, "(did not end)"
  output = done.stdout + done.stderr
  if done.returncode == 0 and re.search(r"\b\d+ passed", output):
    return SURVIVED, ""
  # An identifier may contain spaces; the error follows behind " - ".
  failed = re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", output, re.M)
  if done.returncode in (1, 2) and failed:
    return CAUGHT, failed[1]
  raise RuntimeError(
    f"pytest of {files} ended with {done.returncode}:\n{output}"
  )


def read_kept() -> dict[str, list[str]]:
  return json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else {}


def keep(results: dict) -> None:
  KEPT.parent.mkdir(parents=True, exist_ok=True)
  KEPT.write_text(json.dumps(results, indent=1), "utf-8")


def run(keys: dict[Mutant, str], results: dict) -> None:
  """Runs mutants without a result; adds to `results` and saves them.

  Args:
    keys: mutant -> its `digest`, before the run.
    results: digest -> (outcome, first test that failed).
  """
  due = {mutant: key for mutant, key in keys.items() if key not in results}
  if not due:
    return
  with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
    project = Path(folder)
    copy_project(project)
    files = sorted({path for mutant in due for path in mutant.test_files()})
    print(f"without a fault: {len(files)} test files", flush=True)
    outcome, test = run_tests(project, files)
    if outcome != SURVIVED:
      raise RuntimeError(f"{test} fails without any fault; fix it first.")
    for number, (mutant, key) in enumerate(due.items(), 1):
      path = project / mutant.path
      text = path.read_text("utf-8")
      path.write_text(apply(mutant, text), "utf-8")
      try:
        results[key] = run_tests(project, mutant.test_files())
      finally:
        path.write_text(text, "utf-8")
      keep(results)
      outcome, test = results[key]
      print(f"{number}/{len(due)} {outcome}  {mutant.name}  {test}", flush=True)


def page(mutants: list[Mutant], results: dict) -> str:
  """Returns docs/mutants.md."""
  rows, counts = [], collections.Counter()
  for mutant in mutants:
    outcome, test = results.get(digest(mutant), ("not run", ""))
    counts[outcome] += 1
    by = f"`{test}`" if test else f"**{outcome}**"
    rows.append(f"| {mutant.name} | `{mutant.file}` | {by} |")
  summary = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
  return "\n".join(
    [
      INTRODUCTION,
      f"{len(mutants)} faults: {summary}.\n",
      "| fault | file | caught by |",
      "|---|---|---|",
      *(row.replace("::", " ") for row in rows),
      "",
    ]
  )


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description="Plants faults and runs the tests that should catch them."
  )
  parser.add_argument(
    "--only", default="", help="run mutants whose name contains this text"
  )
  parser.add_argument(
    "--again", action="store_true", help="ignore the results of earlier runs"
  )
  args = parser.parse_args(arguments)
  mutants = read_table()
  if wrong := problems(mutants):
    print("\n".join(wrong), file=sys.stderr)
    return 2
  chosen = [mutant for mutant in mutants if args.only in mutant.name]
  results = {} if args.again else read_kept()
  # Hashes of the files that are tested: they may change during the run.
  keys = {mutant: digest(mutant) for mutant in chosen}
  run(keys, results)
  survivors = [m for m, key in keys.items() if results[key][0] == SURVIVED]
  print(f"{len(chosen)} faults, {len(chosen) - len(survivors)} caught")
  for mutant in survivors:
    print(f"survived: {mutant.name} ({mutant.file}; {', '.join(mutant.tests)})")
  PAGE.write_text(page(mutants, results), "utf-8")
  return 1 if survivors else 0


if __name__ == "__main__":
  raise SystemExit(main())
