"""Answers every row of a manifest and writes the official predictions JSONL.

COMMAND:
  python -m fusar_jax.predict --model runs/stage2 --data data/test.jsonl \\
      --out runs/stage2/predictions
  python -m fusar_jax.predict --model BASE --adapter FOLDER --legacy-sigma 2 \\
      --data data/test.jsonl --out predictions
then score predictions.jsonl with `python -m fusar_jax.evaluate`.

Decoding is greedy. Repeating the command resumes an interrupted run, see
`fusar_jax.inference.prediction`. By default the anchors have the condition of
the training run; `--anchors` selects another one. `--mesh` splits a model over
devices. On several hosts start the command on each, as `train` (docs/pods.md):
they share the rows, and one file comes out.

`--constrain json` restricts answers to detection questions to well-formed box
lists or "None". `--choices` answers classification questions with the likeliest
of the names that they offer, and records all log-likelihoods.
"""

import argparse
import sys

from fusar_jax import command_line
from fusar_jax.inference.options import PredictionOptions, add_options


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("predict", __doc__)
  p.add_argument(
    "--model",
    required=True,
    help="run folder, Hugging Face folder, or hub id (owner/name)",
  )
  p.add_argument("--data", required=True, help="manifest to answer")
  p.add_argument(
    "--out",
    required=True,
    help="folder for predictions.jsonl, or the name of the file, X.jsonl",
  )
  p.add_argument(
    "--overlays",
    metavar="DIR",
    help="new folder for pictures of the detections, prediction_000.png for the"
    " first row: the image as the model sees it, boxes and labels; rows whose"
    " answer cannot be read have none",
  )
  add_options(p)
  return p


def _predict(args: argparse.Namespace) -> None:
  options = PredictionOptions.of_arguments(args)
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.inference.prediction import predict
  from fusar_jax.report.overlays import Overlays
  from fusar_jax.training.compile_cache import compile_cache
  from fusar_jax.training.distributed import initialized

  overlays = Overlays(args.overlays) if args.overlays else None
  with initialized(), compile_cache():
    path = predict(
      args.model, args.data, args.out, options, on_complete=overlays
    )
  print(f"predictions in {path}")
  if args.overlays:
    print(f"pictures in {args.overlays}")


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _predict, argv)


if __name__ == "__main__":
  sys.exit(main())
