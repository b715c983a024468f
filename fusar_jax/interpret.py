"""Answers whole SAR scenes: tiles, questions, and one map of what was found.

COMMAND:
  python -m fusar_jax.interpret --model runs/stage2 --sar SCENE.tif \\
      --aef AEF/ --task detection --classes ship,plane --out runs/scene
  python -m fusar_jax.interpret --model runs/stage2 --sar SCENE.tif \\
      --question "Is there a harbour?" --out runs/harbour

Tiles overlap, so that no target is cut by all tiles that show it; boxes that
several tiles show are merged. OUT holds, for each scene, GeoJSON, GeoPackage
(extra `geo`) and a picture with the boxes, and index.html, findings.csv, the
tiles with their manifest, and the answers. Vector files are in the scene's CRS,
in pixels if it has none. Running the command again resumes. With --labels the
findings are scored.
"""

import argparse
import sys
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.geo.options import LIMIT, SPACING
from fusar_jax.geo.quantities import BACKSCATTER, QUANTITIES
from fusar_jax.inference.options import PredictionOptions, add_options

TASKS = ("detection", "counting", "grounding", "captioning")
# Side of a tile if the model records no image size, as in the official code.
_SIZE = 504
# Share of a tile that the next one shows again.
_OVERLAP = 0.25


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("interpret", __doc__)
  p.add_argument(
    "--model",
    required=True,
    help="run folder, Hugging Face folder, or hub id (owner/name)",
  )
  p.add_argument(
    "--sar",
    nargs="+",
    required=True,
    help="rasters, .npy, Sentinel-1 products, STAC items, URLs",
  )
  p.add_argument("--out", required=True, help="folder to create or to resume")
  g = p.add_argument_group("question")
  g.add_argument("--task", choices=TASKS, help="what to ask (or --question)")
  g.add_argument(
    "--classes",
    type=_names,
    default=(),
    metavar="A,B",
    help="classes to ask for, one question each",
  )
  g.add_argument("--question", help="a question in words, for every tile")
  g = p.add_argument_group("tiles")
  g.add_argument(
    "--size",
    type=int,
    help="tile side, pixels (default: the model's image size)",
  )
  g.add_argument(
    "--overlap",
    type=int,
    help="overlap of neighbouring tiles, pixels (default: a quarter of a tile"
    " for detection, else 0)",
  )
  g.add_argument(
    "--ground-sampling-distance",
    type=float,
    metavar="METRES",
    help="ground sampling distance of the tiles (default: the scene's)",
  )
  g.add_argument(
    "--min-valid",
    type=float,
    default=0.1,
    help="skip tiles with a smaller fraction of valid pixels (default: 0.1)",
  )
  g.add_argument(
    "--nodata", help='nodata value, or "none" (default: the file\'s)'
  )
  g.add_argument(
    "--quantity",
    choices=QUANTITIES,
    help="what the pixels of the scenes measure (default: guessed)",
  )
  g.add_argument(
    "--bands", help="VV, or VV,VH,VV/VH for red, green, blue (default: first)"
  )
  g.add_argument(
    "--calibrate",
    choices=("none", *BACKSCATTER),
    default="none",
    help="backscatter by the product's own calibration (default: %(default)s)",
  )
  g.add_argument(
    "--height",
    type=float,
    metavar="METRES",
    help="of the ground above the ellipsoid, for scenes placed by RPC (default:"
    " that of their centre)",
  )
  g = p.add_argument_group("AlphaEarth")
  g.add_argument(
    "--aef",
    nargs="+",
    metavar="SOURCE",
    help="folders of GeoTIFFs, indexes (.csv, .parquet, .gpkg), rasters; also"
    " at https://, gs:// and s3://",
  )
  g.add_argument(
    "--year", type=int, help="year of the embeddings (default: the scene's)"
  )
  g.add_argument(
    "--max-anchor-error",
    type=float,
    metavar="METRES",
    help="as prepare --max-anchor-error",
  )
  g = p.add_argument_group("truth")
  g.add_argument(
    "--labels", nargs="+", metavar="FILE", help="as prepare --labels"
  )
  g.add_argument("--labels-crs", help="as prepare --labels-crs")
  g.add_argument("--label-field", help="as prepare --label-field")
  g.add_argument(
    "--point-size",
    type=float,
    metavar="METRES",
    help="as prepare --point-size",
  )
  add_options(p.add_argument_group("answers"))
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _interpret, argv)


def _interpret(args: argparse.Namespace) -> None:
  _check_options(args)
  options = PredictionOptions.of_arguments(args)
  # Slow: --help and usage errors need neither rasterio nor JAX.
  from rich.console import Console

  from fusar_jax.datasets.importers.dataset_folder import Origin
  from fusar_jax.datasets.prepare.options import label_reader, open_aef
  from fusar_jax.datasets.prepare.summary import progress_bar
  from fusar_jax.geo.band_stack import check_exists
  from fusar_jax.hf.folders import local_model
  from fusar_jax.inference.load import load
  from fusar_jax.interpretation.files import write_files
  from fusar_jax.interpretation.scene import interpret
  from fusar_jax.training.compile_cache import compile_cache

  for path in args.sar:
    check_exists(Path(path))
  model = local_model(args.model)
  with compile_cache():
    assistant = load(model, **options.model_arguments())
    size = args.size or max(assistant.config.image_size or (_SIZE,))
    plan = _plan(args, size)
    with progress_bar(Console(stderr=True)) as bar:
      task = bar.add_task("tiles", total=None)
      scenes = interpret(
        model,
        args.sar,
        args.out,
        plan,
        Origin(),
        options,
        assistant=assistant,
        archive=open_aef(args.aef, args.year) if args.aef else None,
        read_labels=label_reader(args, unmentioned_are_empty=True),
        on_tile=lambda done, total: bar.update(
          task, completed=done, total=total
        ),
      )
  title = args.question or f"{args.task}: {', '.join(args.classes)}"
  out = Path(args.out)
  written = write_files(out, scenes, plan.look, title)
  for scene in scenes:
    _print_scene(scene)
  print("\n".join(["wrote", *(f"  {path}" for path in written)]))


def _check_options(args: argparse.Namespace) -> None:
  """Raises UsageError for options that contradict each other or do nothing."""
  if (args.task is None) == (args.question is None):
    raise command_line.UsageError("give either --task or --question.")
  asks_classes = args.task in ("detection", "counting", "grounding")
  if asks_classes and not args.classes:
    raise command_line.UsageError(
      f"--task {args.task} needs --classes, for example ship,plane."
    )
  if args.classes and not asks_classes:
    raise command_line.UsageError("--classes needs a task that asks for them.")
  if args.labels and args.task != "detection":
    raise command_line.UsageError("--labels scores --task detection only.")
  for name in ("labels_crs", "label_field", "point_size"):
    if getattr(args, name) and not args.labels:
      flag = f"--{name.replace('_', '-')}"
      raise command_line.UsageError(f"{flag} without --labels does nothing.")
  for name in ("year", "max_anchor_error"):
    if getattr(args, name) is not None and not args.aef:
      flag = f"--{name.replace('_', '-')}"
      raise command_line.UsageError(f"{flag} without --aef does nothing.")


def _plan(args, size: int):
  from fusar_jax.datasets.prepare.preparation import Plan
  from fusar_jax.datasets.prepare.sources import Look

  overlap = args.overlap
  if overlap is None:
    overlap = round(size * _OVERLAP) if args.task == "detection" else 0
  look = Look(
    size=size,
    overlap=overlap,
    ground_sampling_distance=args.ground_sampling_distance,
    bands=args.bands,
    quantity=args.quantity,
    height=args.height,
    calibrate=None if args.calibrate == "none" else args.calibrate,
    nodata=args.nodata if args.nodata in (None, "none") else float(args.nodata),
  )
  return Plan(
    look=look,
    min_valid=args.min_valid,
    year=args.year,
    spacing=SPACING,
    limit=LIMIT,
    max_anchor_error=args.max_anchor_error,
    asked=_questions(args),
  )


def _questions(args):
  from fusar_jax.datasets.prepare.rows import CAPTION, Question
  from fusar_jax.tasks import counting, detection, grounding
  from fusar_jax.tasks.predictions import guess_task

  if args.question:
    task = guess_task(args.question)
    return (Question("question", args.question, task),)
  if args.task == "captioning":
    return (CAPTION,)
  ask = {
    "detection": detection.question,
    "counting": counting.question,
    "grounding": grounding.question,
  }[args.task]
  return tuple(
    Question(f"{name}-{args.task}", ask(name), args.task, name)
    for name in args.classes
  )


def _print_scene(scene) -> None:
  """Prints what was found in a scene."""
  tiles = len({tile.window.name for tile in scene.tiles})
  line = f"{scene.name}: {tiles} tiles, {len(scene.tiles)} answers"
  if any(tile.task == "detection" for tile in scene.tiles):
    line += f", {scene.tile_boxes} boxes, {len(scene.findings)} findings"
  unread = sum(tile.error is not None for tile in scene.tiles)
  if unread:
    line += f"; {unread} answers cannot be read"
  print(line)
  if scene.scores:
    s = scene.scores
    print(
      f"  against {s['true']} labels: F1@.25 {100 * s['f1@0.25']:.1f},"
      f" F1@.5 {100 * s['f1@0.5']:.1f}"
    )


def _names(text: str) -> tuple[str, ...]:
  names = tuple(name.strip() for name in text.split(",") if name.strip())
  if len(set(names)) != len(names):
    raise argparse.ArgumentTypeError(f"a class is named twice in {text!r}")
  return names


if __name__ == "__main__":
  sys.exit(main())
