"""Answers every row of a manifest and writes the official predictions JSONL.

COMMAND:
  python -m fusar_jax.predict --model runs/stage2 --data data/test.jsonl \\
      --out runs/stage2/predictions
  python -m fusar_jax.predict --model BASE --adapter FOLDER --legacy-sigma 2 \\
      --data data/test.jsonl --out predictions
then score predictions.jsonl with `python -m fusar_jax.evaluate`.

Greedy; an interrupted run goes on by the same command, see
`fusar_jax.inference.answering`. The anchors are shown as they were while the
model was trained; `--anchors` shows them otherwise.
"""

import argparse
import sys

from rich.console import Console

from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.inference.answering import FINISHED, predict

__all__ = ["FINISHED", "main", "parser", "predict"]


def parser() -> argparse.ArgumentParser:
  """Returns the command line."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.predict",
    description=__doc__.split("\n")[0],
  )
  p.add_argument(
    "--model",
    required=True,
    help="run folder, Hugging Face folder, or hub id (owner/name)",
  )
  p.add_argument("--adapter", help="PEFT or official adapter to put on it")
  p.add_argument(
    "--legacy-sigma",
    type=float,
    help="for official adapters without tlm_config.json: 2",
  )
  p.add_argument("--data", required=True, help="manifest to answer")
  p.add_argument("--out", required=True, help="folder for the predictions")
  p.add_argument(
    "--anchors",
    choices=CONDITIONS,
    help="a control of the anchors (default: as the run was trained)",
  )
  p.add_argument("--batch-size", type=int, default=16)
  p.add_argument(
    "--max-new-tokens",
    type=int,
    default=256,
    help="cap on an answer (default: %(default)s)",
  )
  p.add_argument("--limit", type=int, help="only the first so many rows")
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = parser().parse_args(argv)
  try:
    path = predict(
      args.model,
      args.data,
      args.out,
      adapter=args.adapter,
      legacy_sigma=args.legacy_sigma,
      anchors=args.anchors,
      batch_size=args.batch_size,
      max_new_tokens=args.max_new_tokens,
      limit=args.limit,
    )
  except (ValueError, OSError) as error:
    Console(stderr=True).print(
      f"predict: {error}", style="red", markup=False, soft_wrap=True
    )
    return 1
  print(f"predictions in {path}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
