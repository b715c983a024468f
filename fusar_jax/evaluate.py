"""Scores a predictions file: every task, with n and 95 % intervals.

COMMAND:
  python -m fusar_jax.evaluate --predictions runs/x/predictions/test.jsonl \\
      --out runs/x/scores
  python -m fusar_jax.evaluate --model runs/x --data data/test.jsonl \\
      --out runs/x/scores
  python -m fusar_jax.evaluate --baseline --manifest data/test.jsonl \\
      --train data/train.jsonl --out scores/baseline
  python -m fusar_jax.evaluate --predictions runs/x/predictions/test.jsonl \\
      --manifest data/test.jsonl --train data/train.jsonl --baselines \\
      --out runs/x/scores
  python -m fusar_jax.evaluate --predictions scores/a --against scores/b \\
      --out scores/a-b
  python -m fusar_jax.evaluate --controls --model runs/x \\
      --manifest data/test.jsonl --out runs/x/controls

Writes metrics.json (all scores), samples.jsonl (every row with its parsed
answer) and report.html: scores, figures, answers, training curves and
provenance, with pictures if the images that --manifest names are available.
An unparsable answer scores as an empty one and counts in `parse_failure_rate`.
A malformed predictions row is an error, and nothing is written. With --model,
the command first predicts as `python -m fusar_jax.predict` does, with the same
options. `--baseline` scores the majority baseline: the most common count, set
of cells, class and caption of the training manifest, and no box.

`--baselines` fits baselines that cannot see the target on the training manifest
(majority, question-only, best constant, image size) and one that looks at the
image (thumbnail 1-NN), tests the model against the strongest of them, and
writes baselines.json, and the scores of each into OUT/baselines.

`--against` tests two models on the same rows (McNemar, paired bootstrap) and
writes comparison.json. Each side is a predictions file, a folder of scores, or
a comma-separated list with one per seed; several seeds are resampled as well as
images. `--controls` predicts with one model under every anchor condition, tests
each condition against aligned anchors, and writes controls.json.
"""

import argparse
import pathlib
import sys

from rich.console import Console

from fusar_jax import command_line
from fusar_jax.inference.options import (
  OPTIONS,
  PredictionOptions,
  add_options,
  flag,
)
from fusar_jax.metrics.grounding_scores import READINGS

# Console width when stdout is not a terminal: comparison tables are wide.
_FILE_WIDTH = 110


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("evaluate", __doc__)
  p.add_argument("--predictions", help="predictions JSONL")
  p.add_argument(
    "--manifest",
    "--data",
    help="read the truth, or for --controls the rows, from this manifest",
  )
  p.add_argument("--out", required=True, help="folder for the scores")
  p.add_argument(
    "--baseline",
    action="store_true",
    help="score the majority baseline on --manifest",
  )
  p.add_argument(
    "--baselines",
    action="store_true",
    help="test the answers against baselines fitted on --train",
  )
  p.add_argument(
    "--train",
    help="training manifest of --baselines, and of --baseline (there default:"
    " --manifest)",
  )
  p.add_argument("--against", help="other answers to the rows of --predictions")
  p.add_argument(
    "--acc50",
    choices=tuple(READINGS),
    default="recall",
    help="definition of acc@50 in grounding (default: %(default)s)",
  )
  p.add_argument(
    "--no-report",
    action="store_true",
    help="skip report.html, which is slow for very many rows",
  )
  p.add_argument(
    "--controls",
    action="store_true",
    help="predict --manifest with --model under every anchor condition",
  )
  p.add_argument(
    "--model",
    help="run folder, Hugging Face folder or hub id that predicts --manifest",
  )
  p.add_argument(
    "--send-scores",
    action="store_true",
    help="also add the main scores to the W&B and MLflow runs of --model",
  )
  add_options(p.add_argument_group("with --model", "as of predict"))
  return p


def _check(args: argparse.Namespace) -> None:
  """Raises UsageError if options are incompatible."""
  sources = (args.predictions, args.model, args.baseline)
  compares = args.against or args.controls
  conflicts = [
    (
      args.controls and (args.baseline or args.against),
      "--controls predicts by itself: drop --against and --baseline",
    ),
    (
      args.controls and not args.model,
      "--controls needs --model and --manifest",
    ),
    (
      sum(map(bool, sources)) != 1,
      "give one of --predictions, --model and --baseline",
    ),
    (
      not args.predictions and not args.manifest,
      "--model and --baseline need --manifest",
    ),
    (
      args.baseline and args.against,
      "--against compares answers of --predictions or --model",
    ),
    (
      args.train and not (args.baseline or args.baselines),
      "--train requires --baselines or --baseline",
    ),
    (
      args.baselines and (compares or args.baseline),
      "--baselines tests the answers of --predictions or --model alone: drop"
      " --against, --controls and --baseline",
    ),
    (
      args.baselines and not (args.manifest and args.train),
      "--baselines needs --manifest and --train",
    ),
    (
      args.acc50 != "recall" and compares,
      "--acc50 applies to scores, not to --against and --controls",
    ),
    (
      args.no_report and (compares or args.baseline),
      "--no-report requires --predictions or --model, without --against",
    ),
    (
      args.send_scores and (compares or not args.model),
      "--send-scores requires --model, without --against and --controls",
    ),
    (
      args.controls and args.anchors,
      "--controls predicts under every condition: drop --anchors",
    ),
    (
      args.controls and not args.use_tlm,
      "--controls tests the anchors, which need the TLM: drop --no-tlm",
    ),
  ]
  defaults = parser()
  conflicts += [
    (
      not args.model and getattr(args, name) != defaults.get_default(name),
      f"{flag(name)} requires --model",
    )
    for name in OPTIONS
  ]
  for found, message in conflicts:
    if found:
      raise command_line.UsageError(message)


def _answer(args: argparse.Namespace) -> str:
  """Runs prediction; returns the path of the predictions file."""
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.inference.prediction import FINISHED, predict
  from fusar_jax.report.scoring import check_truths
  from fusar_jax.training.compile_cache import compile_cache

  # Report unparsable ground truth before hours of prediction.
  check_truths(args.manifest, limit=args.limit)
  file = pathlib.Path(args.out, FINISHED)
  options = PredictionOptions.of_arguments(args)
  with compile_cache():
    return str(predict(args.model, args.manifest, file, options))


def _send(args: argparse.Namespace) -> None:
  """Adds the main scores to the runs of services, by the manifest's name."""
  from fusar_jax.io.strict_json import read_object
  from fusar_jax.report.score_summary import main_scores
  from fusar_jax.training.metric_writers import send_scores

  found = main_scores(read_object(pathlib.Path(args.out, "metrics.json")))
  name = pathlib.Path(args.manifest).stem
  scores = {f"{name}/{score}": value for score, value in found.items()}
  send_scores(pathlib.Path(args.model), scores)


def _width() -> int | None:
  return None if sys.stdout.isatty() else _FILE_WIDTH


def _evaluate(args: argparse.Namespace) -> None:
  _check(args)
  wide = Console(width=_width())
  if args.controls:
    from fusar_jax.experiments.controls import evaluate_controls

    options = PredictionOptions.of_arguments(args)
    wide.print(evaluate_controls(args.model, args.manifest, args.out, options))
    return
  if args.send_scores:
    from fusar_jax.training.metric_writers import find_runs

    find_runs(pathlib.Path(args.model))  # An error before hours of prediction.
  if args.model:
    args.predictions = _answer(args)
  if args.against:
    from fusar_jax.report.comparisons import evaluate_against

    wide.print(
      evaluate_against(args.predictions, args.against, args.out, args.manifest)
    )
  else:
    from fusar_jax.report.scored_answers import score

    score(args, Console(), wide)
  if args.send_scores:
    _send(args)


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _evaluate, argv)


if __name__ == "__main__":
  sys.exit(main())
