"""Validates a dataset before training: statistics, problems, an HTML page.

COMMAND:
  python -m fusar_jax.doctor data/train data/test --model runs/stage0
  python -m fusar_jax.doctor data/train/manifest.jsonl \\
      --model qwen2_5_vl_7b --tokenizer QWEN/tokenizer.json --out train.html
  python -m fusar_jax.doctor new/manifest.jsonl --for predict --model runs/x

With `--for predict`, rows need no answer and lengths are prompt lengths.
Several datasets are treated as splits of one, training first; they must not
share images and should not share near duplicates. Shortcuts are reported as
accuracies: of image size, file name, or the box in the question alone. The
command prints statistics and problems, and writes a page of samples as the
model receives them, including the supervised tokens. Exit codes: 0 no errors
(warnings are possible), 1 errors in the data, 2 invalid command.
"""

import argparse
import collections
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fusar_jax import command_line
from fusar_jax import config as config_lib
from fusar_jax.data.examples import MAX_LENGTH, PROMPT_LENGTH
from fusar_jax.data.tokenizer import Tokenizer, load_tokenizer
from fusar_jax.datasets.scan import choose, manifest_of
from fusar_jax.datasets.validation import Inspection, inspect
from fusar_jax.hf.config_json import read_config
from fusar_jax.io.strict_json import read_object
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
  track=lambda items, what: items,
) -> Inspection:
  """Validates datasets, writes their page and returns the findings.

  Args:
    datasets: manifests or folders with a manifest.jsonl; splits of one dataset.
    out: HTML file to write.
    model: name of a preset, a run, or a Hugging Face folder.
    tokenizer: file or folder; default: that of the model's folder, if any.
    samples: rows on the page.
    seed: selects the sample rows.
    max_length: maximum tokens of a row, or of its prompt for "predict";
      default: LENGTHS.
    purpose: what the rows are for: "train" or "predict".
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
  elif Path(model).is_dir():
    folder = Path(model)
    if provenance.is_run(folder):
      written = read_object(folder / provenance.CONFIG_FILE)
      config = config_lib.from_dict(written["model"])
      folder = folder / TOKENIZER
    else:
      config = read_config(folder)
  else:
    raise ValueError(
      f"unknown model {model!r}; give a run, a Hugging Face folder, or one of"
      f" {', '.join(sorted(config_lib.PRESETS))}."
    )
  if tokenizer is None and folder is not None:
    names = ("tokenizer.json", "tokenizer.model")
    if any((folder / name).is_file() for name in names):
      tokenizer = str(folder)
  if tokenizer is None:
    return config, None, None
  words = load_tokenizer(tokenizer)
  if words.special_tokens() != config.tokens:
    raise ValueError(
      f"tokenizer {tokenizer}: special tokens {words.special_tokens()} are not"
      f" those of {model}, {config.tokens}; give the model's own."
    )
  if words.vocab_size > config.decoder.vocab:
    raise ValueError(
      f"tokenizer {tokenizer}: {words.vocab_size} pieces, but {model} has"
      f" {config.decoder.vocab} embeddings; give the model's own."
    )
  return config, words, tokenizer


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("doctor", __doc__)
  p.add_argument(
    "datasets",
    nargs="+",
    metavar="DATASET",
    help="manifest, or folder with manifest.jsonl; several: splits of one set",
  )
  p.add_argument(
    "--model",
    default="qwen2_5_vl_7b",
    help="run, Hugging Face folder, or preset"
    f" ({', '.join(sorted(config_lib.PRESETS))}; default: %(default)s)",
  )
  p.add_argument(
    "--tokenizer",
    help="tokenizer.json, SentencePiece .model, or a folder with one;"
    " default: that of the model's folder",
  )
  p.add_argument(
    "--for",
    dest="purpose",
    choices=tuple(LENGTHS),
    default="train",
    help="what the rows are for: predict needs no answers (default:"
    " %(default)s)",
  )
  p.add_argument(
    "--max-length",
    type=int,
    help="in tokens, of a prompt with --for predict (default:"
    f" {LENGTHS['train']}, {LENGTHS['predict']} for predict)",
  )
  p.add_argument(
    "--samples",
    type=int,
    default=12,
    help="rows on the page (default: %(default)s)",
  )
  p.add_argument(
    "--seed",
    type=int,
    default=0,
    help="seed that selects the rows (default: %(default)s)",
  )
  p.add_argument(
    "--out",
    default="doctor.html",
    help="page to write (default: %(default)s)",
  )
  return p


def _doctor(args: argparse.Namespace) -> int:
  short = args.max_length is not None and args.max_length < 1
  if args.samples < 0 or args.seed < 0 or short:
    raise command_line.UsageError(
      "expected --samples >= 0, --seed >= 0, --max-length >= 1."
    )
  if Path(args.out).is_dir():
    raise command_line.UsageError(
      f"--out {args.out} is a folder; give an HTML file."
    )
  try:
    # Fail early: reading the images can take minutes.
    for dataset in args.datasets:
      manifest_of(dataset)
    found = examine(
      args.datasets,
      args.out,
      model=args.model,
      tokenizer=args.tokenizer,
      samples=args.samples,
      seed=args.seed,
      max_length=args.max_length,
      purpose=args.purpose,
      track=_track,
    )
  except (ValueError, OSError) as error:
    # 1 is the exit code of errors in the data.
    raise command_line.UsageError(str(error)) from None
  print_findings(found, Console())
  print(f"page in {args.out}")
  return 1 if found.errors else 0


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


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _doctor, argv)


def _plain(text: str) -> str:
  """Returns text without control characters or lone surrogates."""
  seen = "".join(c if c.isprintable() else " " for c in text)
  return seen.encode("utf-8", "replace").decode()


def _track(items: Sequence, what: str) -> Iterable:
  console = Console(stderr=True)
  return progress.track(
    items,
    description=what,
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )


if __name__ == "__main__":
  sys.exit(main())
