"""Reference of all config fields, for `train --help` and docs/config.md.

A field is documented once: by its comment in `configs/base.py`, or, for
`config.model`, by the docstrings of `fusar_jax/model/config.py`. Imports no
JAX.
"""

import collections
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fusar_jax.config import (
  CONFIGS,
  PRESETS,
  SMALL_PRESETS,
  SWITCHES,
  load_module,
  stage_files,
)
from fusar_jax.model import config as model_lib

_PARTS = {
  "": model_lib.FusarConfig,
  "vision.": model_lib.VisionConfig,
  "decoder.": model_lib.DecoderConfig,
  "tlm.": model_lib.TLMConfig,
  "lora.": model_lib.LoRAConfig,
  "tokens.": model_lib.SpecialTokens,
}
_WIDTH = 79


def meanings() -> dict[str, str]:
  """Returns {field without "config.": description}, without sections."""
  found = {}
  for path in (CONFIGS / "base.py", *stage_files().values()):
    found = _comments(path.read_text(encoding="utf-8")) | found
  for part, kind in _PARTS.items():
    for names, text in _attributes(kind.__doc__):
      found |= {f"model.{part}{name}": text for name in names}
  # model.tlm is also a field: None in stages without TLM.
  sections = {f"model.{part[:-1]}" for part in _PARTS} - {"model.tlm"}
  return {name: text for name, text in found.items() if name not in sections}


def values() -> dict[str, dict[str, Any]]:
  """Returns {stage: {field: default}} of the stages in the repository."""
  return {
    name: _flat(load_module(path).get_config().to_dict())
    for name, path in stage_files().items()
  }


def text() -> str:
  """Returns the text of `train --help`: stages, models, switches, fields."""
  if not stage_files():
    return (
      f"Stages and fields are listed from {CONFIGS}, which is not there: the"
      " configs are not installed with the package. Run from a checkout."
    )
  lines = ["stages (--config configs/NAME.py:SWITCH=VALUE,...):"]
  modules = {name: load_module(path) for name, path in stage_files().items()}
  for name, module in modules.items():
    lines += entry(name, (module.__doc__ or "").partition("\n")[0])
  lines += ["", "models (:model=NAME):"]
  lines += entry("init", "whatever config.init is, of any size")
  for name, model in PRESETS.items():
    small = "; implies recipe=tiny" if name in SMALL_PRESETS else ""
    d = model.decoder
    lines += entry(name, f"{d.layers} layers of width {d.hidden_size}{small}")
  lines += ["", "switches (after FILE.py:, separated by commas):"]
  for name, meaning in SWITCHES.items():
    having = [n for n, m in modules.items() if name in m.SWITCHES]
    lines += entry(name, f"{meaning}. In {', '.join(having)}")
  lines += ["", "fields (--config.FIELD=VALUE), with their default:"]
  table, about = values(), meanings()
  for name in _fields(table):
    lines += entry(name, f"[{_default(name, table)}] {about.get(name, '')}")
  return "\n".join(lines)


def markdown() -> str:
  """Returns the content of docs/config.md."""
  table, about = values(), meanings()
  stages = list(table)
  page = [
    "# Fields of a config",
    "",
    "Made by `python -m fusar_jax.config_reference` from the comments in"
    " `configs/base.py` and the docstrings in `fusar_jax/model/config.py`. Any"
    " field is overridden by `--config.FIELD=VALUE`; `python -m"
    " fusar_jax.train --help` prints the same.",
    "",
    "| switch of `--config FILE.py:` | meaning |",
    "|---|---|",
    *(f"| `{name}` | {meaning} |" for name, meaning in SWITCHES.items()),
    "",
    f"| field | meaning | {' | '.join(stages)} |",
    "|---" * (len(stages) + 2) + "|",
  ]
  for name in _fields(table):
    cells = [f"`{_shown(table[stage].get(name))}`" for stage in stages]
    page.append(f"| `{name}` | {about[name]} | {' | '.join(cells)} |")
  return "\n".join(page) + "\n"


def _comments(source: str) -> dict[str, str]:
  """Returns {assigned field: comment lines directly above it}."""
  found, above = {}, []
  for line in map(str.strip, source.splitlines()):
    assigned = re.match(r"config\.([\w.]+) = ", line)
    if assigned and above:
      found[assigned[1]] = " ".join(above)
    above = [*above, line[2:]] if line.startswith("# ") else []
  return found


def _attributes(docstring: str) -> Iterator[tuple[list[str], str]]:
  """Yields (names, text) of the "Attributes:" section of a docstring."""
  body = textwrap.dedent(docstring.partition("Attributes:\n")[2])
  for entry in re.split(r"\n(?=\S)", body.strip()):
    names, _, text = " ".join(entry.split()).partition(": ")
    yield names.split(", "), text


def _flat(tree: Mapping, prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def _fields(table: Mapping) -> list[str]:
  """Returns all fields in the order of `meanings`: the model's come last."""
  order = {name: index for index, name in enumerate(meanings())}
  names = dict.fromkeys(name for flat in table.values() for name in flat)
  return sorted(names, key=lambda name: order.get(name, -1))


def _default(name: str, table: Mapping) -> str:
  """Returns the most frequent default, then those of deviating stages."""
  shown = {
    stage: _shown(flat[name]) for stage, flat in table.items() if name in flat
  }
  most = collections.Counter(shown.values()).most_common(1)[0][0]
  others = [f"; {s} {v}" for s, v in shown.items() if v != most]
  return most + "".join(others)


def _shown(value: Any) -> str:
  return '""' if value == "" else str(value)


def entry(name: str, about: str) -> list[str]:
  """Returns the help lines of a name; a long name gets a separate line."""
  lines = textwrap.wrap(about, _WIDTH - 18, break_on_hyphens=False) or [""]
  head = f"  {name:15} "
  if len(head) > 18:
    return [head.rstrip(), *(" " * 18 + line for line in lines)]
  return [head + lines[0], *(" " * 18 + line for line in lines[1:])]


if __name__ == "__main__":
  print(markdown(), end="")
