"""Shared options, summary and exit codes of the importer commands."""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.targets import EVERY_TASK, TASKS


def parser(name: str, description: str) -> argparse.ArgumentParser:
  """Returns a parser with the options of every importer."""
  options = command_line.Parser(
    f"datasets.importers.{name}",
    description,
    renamed={"--drop-refused": "--drop-rejected"},
  )
  options.prog = f"python -m fusar_jax.datasets.importers.{name}"
  options.add_argument("--out", required=True, help="folder to create")
  options.add_argument(
    "--source", help="source of the data, for citation (default: unknown)"
  )
  options.add_argument(
    "--license",
    help='terms of the data, or "none stated" (default: unknown)',
  )
  options.add_argument(
    "--copy", action="store_true", help="also copy the images"
  )
  options.add_argument(
    "--drop-rejected",
    action="store_true",
    help="skip bad entries and list them in rejected.txt (default: stop)",
  )
  return options


def add_box_options(options: argparse.ArgumentParser) -> None:
  """Adds the shared options of the box importers."""
  options.add_argument("--classes", nargs="*", default=(), help="default: all")
  options.add_argument("--tasks", nargs="+", default=TASKS, choices=EVERY_TASK)


def run(
  options: argparse.ArgumentParser,
  importer: Callable[..., Path | Iterable[Path]],
  argv: Sequence[str] | None,
) -> int:
  """Runs an import, prints a summary and returns the exit code.

  Args:
    options: from `parser`.
    importer: takes `origin` and each other option under its own name; returns
      the manifest, or the manifest of each split.
    argv: arguments; None: those of the process.
  """

  def import_data(args: argparse.Namespace) -> None:
    values = vars(args)
    source, terms = values.pop("source"), values.pop("license")
    written = importer(origin=Origin(source, terms), **values)
    for manifest in [written] if isinstance(written, Path) else written:
      print(_summary(manifest))

  return command_line.run(options, import_data, argv)


def _summary(manifest: Path) -> str:
  card = json.loads((manifest.parent / "dataset.json").read_text("utf-8"))
  text = f"{manifest}: {card['rows']} rows of {card['images']} images"
  if "targets" in card:
    text += f", {card['targets']} targets of {', '.join(card['classes'])}"
  if card["rejected"]:
    text += f"; {card['rejected']} rejected, listed in rejected.txt"
  if card.get("chip_size"):
    text += f"; chips cropped or padded to {card['chip_size']} pixels"
  if n := card.get("near_duplicates_across_splits"):
    text += (
      f"; {n} chips have a near duplicate in another split"
      " (python -m fusar_jax.datasets.split --test drops them)"
    )
  if card.get("copies") == "keep" and card["copies_found"]:
    text += (
      f"; {len(card['copies_found'])} groups of copies in all splits were kept,"
      " listed in dataset.json"
    )
  elif card["identical_images"]:
    text += (
      f"; {len(card['identical_images'])} groups of byte-identical images,"
      " listed in dataset.json"
    )
  return text
