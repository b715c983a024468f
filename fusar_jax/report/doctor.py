"""Validates datasets, writes their page and prints the findings: `doctor`."""

import collections
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusar_jax import config as config_lib
from fusar_jax.data.lengths import MAX_LENGTH, PROMPT_LENGTH
from fusar_jax.data.tokenizer import Tokenizer, load_tokenizer
from fusar_jax.datasets.scan import choose
from fusar_jax.datasets.validation import Inspection, inspect
from fusar_jax.hf import folders
from fusar_jax.hf.config_json import read_config
from fusar_jax.model.config import FusarConfig
from fusar_jax.report.dataset_page import summary, write_dataset_page
from fusar_jax.report.sample_card import read_sample
from fusar_jax.training import provenance
from fusar_jax.training.workdir import TOKENIZER

# Purpose of the rows -> maximum tokens of a row, or of its prompt.
LENGTHS = {"train": MAX_LENGTH, "predict": PROMPT_LENGTH}
# Lines of one kind beyond this number are only counted; the page lists more.
_MAX_LISTED = 10


def examine(
  datasets: Sequence[str],
  out: str | Path,
  *,
  model: str = "qwen2_5_vl_7b",
  tokenizer: str | None = None,
  samples: int = 12,
  seed: int = 0,
  max_length: int | None = None,
  purpose: str = "train",
  duplicates: bool = True,
  track=lambda items, what: items,
) -> Inspection:
  """Validates datasets, writes their page and returns the findings.

  Args:
    datasets: manifests or folders with a manifest.jsonl; splits of one dataset.
    out: HTML file to write.
    model: name of a preset, a run, a Hugging Face folder, or "tiny-base".
    tokenizer: file or folder; default: that of the model's folder, if any.
    samples: rows on the page.
    seed: selects the sample rows.
    max_length: maximum tokens of a row, or of its prompt for "predict";
      default: LENGTHS.
    purpose: what the rows are for: "train" or "predict".
    duplicates: search for near duplicates.
    track: see `fusar_jax.datasets.validation.inspect`.

  Raises:
    FileNotFoundError, ValueError: a manifest, model or tokenizer is missing
      or does not match. Problems inside the data are reported, not raised.
  """
  config, words, named = read_model(model, tokenizer)
  found = inspect(
    datasets,
    config,
    words,
    max_length=LENGTHS[purpose] if max_length is None else max_length,
    with_answers=purpose == "train",
    duplicates=duplicates,
    track=track,
  )
  shown = [
    read_sample(row, config, words)
    for row in choose(found.splits, samples, seed)
  ]
  write_dataset_page(out, found, shown, model=model, tokenizer=named)
  return found


def read_model(
  model: str, tokenizer: str | None
) -> tuple[FusarConfig, Tokenizer | None, str | None]:
  """Returns (config, tokenizer or None, its name) without reading weights.

  Raises:
    FileNotFoundError, ValueError: as `examine`.
  """
  folder = None
  if model in config_lib.PRESETS:
    config = config_lib.preset(model)
  elif Path(model).is_dir() or model == folders.TINY_BASE:
    folder = folders.resolve(model)
    if provenance.is_run(folder):
      config = provenance.read_model_config(folder)
      folder = folder / TOKENIZER
    else:
      config = read_config(folder)
  else:
    raise ValueError(
      f"unknown model {model!r}; give a run, a Hugging Face folder,"
      f" {folders.TINY_BASE}, or one of"
      f" {', '.join(sorted(config_lib.PRESETS))}."
    )
  if tokenizer is None and folder is not None:
    names = ("tokenizer.json", "tokenizer.model")
    if any((folder / name).is_file() for name in names):
      tokenizer = str(folder)
  if tokenizer is None:
    return config, None, None
  words = load_tokenizer(tokenizer)
  words.check_fits(tokenizer, config, "give the model's own")
  return config, words, tokenizer


def print_findings(found: Inspection, console: Console) -> None:
  """Prints the statistics as a table, then one line per problem."""
  table = Table("")
  # Text: names come from the data, and rich parses brackets as markup.
  for split in found.splits:
    table.add_column(Text(_plain(split.name)), justify="right")
  for group in summary(found):
    for name, values in group:
      table.add_row(*(Text(_plain(cell)) for cell in (name, *values)))
    table.add_section()
  console.print(table)
  if not found.has_lengths:
    console.print(
      "Lengths in tokens need a tokenizer: give --tokenizer, or a --model"
      " folder that holds one.",
      style="yellow",
    )
  listed = collections.Counter()
  kinds = found.kinds()
  for problem in found.problems:
    listed[problem.kind] += 1
    name = "error" if problem.is_error else "warning"
    left = kinds[problem.kind] - _MAX_LISTED
    if listed[problem.kind] <= _MAX_LISTED:
      line = f"{name}: {problem.kind}: {problem.text}"
    elif listed[problem.kind] == _MAX_LISTED + 1:
      line = f"{name}: {problem.kind}: ... and {left} more"
    else:
      continue
    style = "red" if problem.is_error else "yellow"
    console.print(
      _plain(line), style=style, markup=False, highlight=False, soft_wrap=True
    )
  console.print(found.verdict)


def _plain(text: str) -> str:
  """Returns text without control characters or lone surrogates."""
  seen = "".join(c if c.isprintable() else " " for c in text)
  return seen.encode("utf-8", "replace").decode()


def track(items: Sequence, what: str) -> Iterable:
  """Yields the items with a progress bar on a terminal."""
  console = Console(stderr=True)
  return progress.track(
    items,
    description=what,
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )
