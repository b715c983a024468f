"""Table of the model's parts: parameters, total and trainable."""

import math

from rich.console import Console
from rich.table import Table

from fusar_jax.model.paths import flatten
from fusar_jax.model.quantization import is_scale
from fusar_jax.training import partition


def print_parameter_table(
  trainable: partition.Params, frozen: partition.Params
) -> None:
  """Prints a table of the model's parts, total and trainable counts."""
  counts: dict[str, list[int]] = {}
  for tree, trains in ((trainable, True), (frozen, False)):
    for path, leaf in flatten(tree).items():
      if is_scale(path):
        continue
      part = _part(path)
      row = counts.setdefault(part, [0, 0])
      row[0] += math.prod(leaf.shape)
      row[1] += math.prod(leaf.shape) * trains
  counts["all"] = [sum(column) for column in zip(*counts.values())]
  table = Table("part", "parameters", "trainable")
  for column in table.columns[1:]:
    column.justify = "right"
  for part, (total, trains) in counts.items():
    table.add_row(part, f"{total:,}", f"{trains:,}")
  Console().print(table)


def _part(path: str) -> str:
  if path.endswith(("/lora_a", "/lora_b")):
    return "LoRA, vision" if path.startswith("visual") else "LoRA, language"
  names = {
    "visual": "vision tower",
    "tlm": "TLM",
    "model": "decoder",
    "lm_head": "head",
  }
  if path.startswith("visual/merger"):
    return "patch merger"
  if path.startswith("model/embed_tokens"):
    return "embedding"
  return names[path.split("/")[0]]
