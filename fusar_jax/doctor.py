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
import sys
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.config import PRESETS
from fusar_jax.data.lengths import MAX_LENGTH, PROMPT_LENGTH


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
    help="run, Hugging Face folder, tiny-base, or preset"
    f" ({', '.join(sorted(PRESETS))}; default: %(default)s)",
  )
  p.add_argument(
    "--tokenizer",
    help="tokenizer.json, SentencePiece .model, or a folder with one;"
    " default: that of the model's folder",
  )
  p.add_argument(
    "--for",
    dest="purpose",
    choices=("train", "predict"),
    default="train",
    help="what the rows are for: predict needs no answers (default:"
    " %(default)s)",
  )
  p.add_argument(
    "--max-length",
    type=int,
    help="in tokens, of a prompt with --for predict (default:"
    f" {MAX_LENGTH}, {PROMPT_LENGTH} for predict)",
  )
  p.add_argument(
    "--no-duplicates",
    action="store_true",
    help="skip the search for near duplicates, whose time grows with the square"
    " of the number of images",
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
  # Slow: --help and usage errors need no JAX.
  from rich.console import Console

  from fusar_jax.datasets.scan import manifest_of
  from fusar_jax.report import doctor

  try:
    # Fail early: reading the images can take minutes.
    for dataset in args.datasets:
      manifest_of(dataset)
    found = doctor.examine(
      args.datasets,
      args.out,
      model=args.model,
      tokenizer=args.tokenizer,
      samples=args.samples,
      seed=args.seed,
      max_length=args.max_length,
      purpose=args.purpose,
      duplicates=not args.no_duplicates,
      track=doctor.track,
    )
  except (ValueError, OSError) as error:
    # 1 is the exit code of errors in the data.
    raise command_line.UsageError(str(error)) from None
  doctor.print_findings(found, Console())
  print(f"page in {args.out}")
  return 1 if found.errors else 0


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _doctor, argv)


if __name__ == "__main__":
  sys.exit(main())
