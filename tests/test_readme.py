"""Commands, flags and files in README, docs/, examples/, launch/ and configs/
exist.
"""

import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest

from fusar_jax import __main__ as fusar

ROOT = Path(__file__).resolve().parent.parent


def notebook_page(path: Path) -> str:
  """Returns a notebook as Markdown; cells of other magics are left out."""
  parts = []
  for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
      parts.append(source)
    elif source.startswith("%%bash\n"):
      parts.append(f"```bash\n{source.partition(chr(10))[2]}\n```")
    elif not re.search(r"^\s*[%!]", source, re.M):
      parts.append(f"```python\n{source}\n```")
  return "\n".join(parts)


PAGES = "\n".join(
  [
    *(
      path.read_text(encoding="utf-8")
      for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    ),
    *map(notebook_page, sorted((ROOT / "examples").glob("*.ipynb"))),
  ]
)


def blocks(language: str) -> list[str]:
  return re.findall(rf"^```{language}\n(.*?)^```", PAGES, re.M | re.S)


def commands() -> list[list[str]]:
  """Returns the commands of all bash blocks, without environment settings."""
  text = "\n".join(blocks("bash")).replace("\\\n", " ")
  text = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", text, flags=re.M)
  found = (shlex.split(line, comments=True) for line in text.splitlines())
  return [words for words in found if words]


def ours() -> dict[str, list[list[str]]]:
  """Returns {module: arguments of each of its commands}."""
  found = {}
  for words in commands():
    if words[0] == "fusar" and words[1] in fusar.COMMANDS:
      words = ["python", "-m", f"fusar_jax.{words[1]}", *words[2:]]
    if words[:2] == ["python", "-m"] and words[2].startswith("fusar_jax."):
      found.setdefault(words[2], []).append(words[3:])
  return found


def train_commands() -> list[list[str]]:
  """Returns the arguments of `train`, also in launch/ and configs/."""
  found = ours()["fusar_jax.train"]
  for page in [
    ROOT / "launch/README.md",
    *(ROOT / "configs").glob("stage*.py"),
  ]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
      if "--config" in line and "`" not in line:
        words = shlex.split(line, comments=True)
        at = next(i for i, w in enumerate(words) if w.startswith("--config"))
        found.append(words[at:])
  return found


OURS = ours()
TRAIN = train_commands()


def test_targets_of_make_exist():
  made = {w for words in commands() if words[0] == "make" for w in words[1:]}
  assert {"test", "demo"} <= made
  makefile = (ROOT / "Makefile").read_text()
  for target in made:
    assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("module", sorted({*OURS} - {"fusar_jax.train"}))
def test_flags_are_known(module, capsys):
  found = importlib.import_module(module)
  if not hasattr(found, "main"):
    found = importlib.import_module(f"{module}.__main__")
  with pytest.raises(SystemExit) as end:
    found.main(["--help"])
  assert not end.value.code
  known = set(re.findall(r"--[a-z][\w-]*", capsys.readouterr().out))
  for arguments in OURS[module]:
    given = {w.partition("=")[0] for w in arguments if w.startswith("--")}
    assert {flag for flag in given if "." not in flag} <= known


@pytest.mark.parametrize("arguments", TRAIN, ids=" ".join)
def test_train_commands_are_read(arguments, read_flags):
  """The config file loads and accepts each override."""
  assert len(TRAIN) > len(OURS["fusar_jax.train"])
  config, workdir = read_flags(arguments)
  assert config.model
  assert config.data.train
  assert workdir


def test_python_blocks_compile_and_configs_exist():
  for code in blocks("python"):
    ast.parse(code)
  for path in set(re.findall(r"configs/\w+\.py", PAGES)):
    assert (ROOT / path).is_file(), path
