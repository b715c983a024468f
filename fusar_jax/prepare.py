"""Tiles SAR scenes into a dataset: AlphaEarth anchors, labels, prompts.

COMMAND:
  python -m fusar_jax.prepare --sar SCENE.tif [S1A_..._1SDV_...zip ...] \\
      --aef AEF/ --year 2024 --labels ships.geojson --out data/scenes
then validate it: python -m fusar_jax.doctor data/scenes

Running the command again resumes an interrupted run. --land-cover writes a
caption of each tile, as stage 1 needs. Without it and without --labels the rows
ask for captions and have no answers: use them for `predict`, not for training.
"""

import argparse
import sys
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.datasets.importers.targets import EVERY_TASK, TASKS
from fusar_jax.geo.options import CURVES, LIMIT, PERCENTILES, SPACING
from fusar_jax.geo.quantities import BACKSCATTER, QUANTITIES

# Option -> options that require it.
_NEEDS = {
  "aef": (
    "year",
    "spacing",
    "limit",
    "method",
    "max_anchor_error",
    "table",
    "require_anchors",
  ),
  "labels": (
    "labels_crs",
    "label_field",
    "point_size",
    "empty_scenes",
    "classes",
    "tasks",
    "min_inside",
    "skip_empty",
  ),
  "land_cover": (
    "land_cover_table",
    "land_cover_year",
    "features",
    "caption_style",
    "caption_seed",
  ),
}


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser(
    "prepare",
    __doc__,
    usage="%(prog)s --sar SCENE [SCENE ...] --out DIR [--aef SOURCE ...]"
    " [--year Y] [--labels FILE ...] [options]",
    renamed={"--drop-refused": "--drop-rejected"},
  )
  p.add_argument(
    "--sar",
    nargs="+",
    required=True,
    help="rasters, .npy, Sentinel-1 products, STAC items, URLs",
  )
  p.add_argument("--out", required=True, help="folder to create or to resume")
  p.add_argument(
    "--source", help="source of the scenes, for citation (default: unknown)"
  )
  p.add_argument(
    "--license",
    help='licence of the scenes, or "none stated" (default: unknown)',
  )
  p.add_argument(
    "--drop-rejected",
    action="store_true",
    help="skip corrupt inputs and list them in rejected.txt; default: stop",
  )
  g = p.add_argument_group("tiles")
  g.add_argument(
    "--size",
    type=int,
    default=504,
    help="tile side, pixels; a smaller scene is one tile of its own size"
    " (default: 504)",
  )
  g.add_argument(
    "--overlap",
    type=int,
    default=0,
    help="overlap of neighbouring tiles, pixels (default: 0)",
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
    default=0.5,
    help="skip tiles with a smaller fraction of valid pixels (default: 0.5)",
  )
  g.add_argument(
    "--nodata",
    type=_nodata,
    help='nodata value, or "none" (default: as declared by the file, else'
    " guessed)",
  )
  g.add_argument(
    "--quantity",
    choices=QUANTITIES,
    help="what the pixels of the scenes measure (default: guessed)",
  )
  g.add_argument(
    "--bands",
    help="VV, or VV,VH,VV/VH for red, green, blue, in short VV,VH; other files"
    " of a scene are found by their names (default: the first)",
  )
  g.add_argument(
    "--calibrate",
    choices=("none", *BACKSCATTER),
    default="none",
    help="backscatter by the product's own calibration (default: %(default)s)",
  )
  g.add_argument(
    "--percentiles",
    type=float,
    nargs=2,
    default=PERCENTILES,
    metavar=("LOW", "HIGH"),
    help="percentiles mapped to black and white (default: 1 99)",
  )
  g.add_argument(
    "--curve", choices=CURVES, help="curve of the stretch to 8 bits"
  )
  g.add_argument(
    "--stretch", metavar="DATASET.json", help="reuse another dataset's stretch"
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
    "--year",
    type=int,
    help="year of the embeddings (default: that of each scene's date)",
  )
  g.add_argument(
    "--spacing",
    type=float,
    default=SPACING,
    help="metres between anchors (default: %(default)s)",
  )
  g.add_argument(
    "--limit",
    type=int,
    default=LIMIT,
    help="maximum anchors per side (default: %(default)s)",
  )
  g.add_argument(
    "--method",
    choices=("nearest", "bilinear"),
    default="nearest",
    help="interpolation of the embeddings (default: %(default)s)",
  )
  g.add_argument(
    "--max-anchor-error",
    type=float,
    metavar="METRES",
    help="no anchors for scenes whose positions may be off by more (default:"
    " anchors, and a note of the error)",
  )
  g.add_argument(
    "--table", action="store_true", help="also write .npy tables of the anchors"
  )
  g.add_argument(
    "--require-anchors", action="store_true", help="skip tiles without anchors"
  )
  g = p.add_argument_group("captions")
  g.add_argument(
    "--land-cover",
    nargs="+",
    metavar="RASTER",
    help="rasters of a land-cover product, or folders of .tif and .tiff files;"
    " writes a caption of each tile",
  )
  g.add_argument(
    "--land-cover-table",
    metavar="TABLE",
    help="classes of the product: worldcover, dynamic-world, esri, corine, or a"
    " CSV file with code,cover (default: by the rasters' names)",
  )
  g.add_argument(
    "--land-cover-year",
    type=int,
    metavar="YEAR",
    help="year of the product (default: by the rasters' names)",
  )
  g.add_argument(
    "--features",
    nargs="+",
    metavar="[KIND=]FILE",
    help="maps of buildings, roads, water, aeroways and harbours: GeoJSON,"
    " GeoPackage, Shapefile, FlatGeobuf or Parquet with attributes of"
    " OpenStreetMap, Geofabrik or Overture; or building=FILE, road=FILE, ...",
  )
  g.add_argument(
    "--caption-style",
    choices=("full", "short"),
    default="full",
    help="with shares and places, or as terse as simulated captions (default:"
    " %(default)s)",
  )
  g.add_argument(
    "--caption-seed",
    type=int,
    default=0,
    help="selects the wording of each full caption (default: %(default)s)",
  )
  g = p.add_argument_group("labels")
  g.add_argument(
    "--labels",
    nargs="+",
    metavar="FILE",
    help="COCO or GeoJSON (.json, .geojson), VOC or OpenSARShip (.xml), vector"
    " files (.gpkg, .shp, .fgb, .parquet, .kml, .tab, .mif, .geojsonl), or .csv"
    " with scene,x1,y1,x2,y2,label; west,south,east,north,label; wkt,label; or"
    " of xView3",
  )
  g.add_argument(
    "--labels-crs",
    help='CRS of geographic labels: "scene" or EPSG:... (default: the'
    " file's, else longitude and latitude)",
  )
  g.add_argument(
    "--label-field", help="property that names the class of geographic labels"
  )
  g.add_argument(
    "--point-size",
    type=float,
    metavar="METRES",
    help="side of the box around a label that is a point (default: points are"
    " an error)",
  )
  g.add_argument(
    "--empty-scenes",
    action="store_true",
    help="treat scenes that the labels do not mention as empty",
  )
  g.add_argument(
    "--classes", nargs="*", default=(), help="classes to keep (default: all)"
  )
  g.add_argument(
    "--tasks",
    nargs="+",
    default=TASKS,
    choices=EVERY_TASK,
    help=f"questions to ask (default: {' '.join(TASKS)})",
  )
  g.add_argument(
    "--min-inside",
    type=float,
    default=0.5,
    help="fraction of a box that must be in a tile (default: 0.5)",
  )
  g.add_argument(
    "--skip-empty", action="store_true", help="skip tiles without targets"
  )
  g.add_argument(
    "--metadata-in-prompt",
    action="store_true",
    help="put sensor, polarisation, date and sampling before the question",
  )
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _prepare, argv)


def _prepare(args: argparse.Namespace) -> None:
  _check_options(args)
  # Slow: --help and usage errors need no rasterio.
  from rich.console import Console

  from fusar_jax.datasets.importers.dataset_folder import Origin
  from fusar_jax.datasets.prepare.options import label_reader
  from fusar_jax.datasets.prepare.preparation import prepare_scenes
  from fusar_jax.datasets.prepare.summary import print_summary, progress_bar

  with progress_bar(Console(stderr=True)) as bar:
    task = bar.add_task("tiles", total=None)
    card = prepare_scenes(
      args.sar,
      args.out,
      _plan(args),
      Origin(args.source, args.license),
      archive=_archive(args),
      read_labels=label_reader(args, unmentioned_are_empty=args.empty_scenes),
      read_captions=_captions(args),
      drop_rejected=args.drop_rejected,
      on_tile=lambda done, total: bar.update(task, completed=done, total=total),
    )
  print_summary(card, Path(args.out), Console())


def _check_options(args: argparse.Namespace) -> None:
  """Raises UsageError for options that would have no effect."""
  defaults = parser()
  for needed, others in _NEEDS.items():
    idle = [
      f"--{name.replace('_', '-')}"
      for name in others
      if not getattr(args, needed)
      and getattr(args, name) != defaults.get_default(name)
    ]
    if idle:
      raise command_line.UsageError(
        f"{', '.join(idle)} without --{needed.replace('_', '-')} would do"
        " nothing."
      )
  if args.caption_style == "short" and args.caption_seed:
    raise command_line.UsageError(
      "--caption-seed would do nothing: short captions have one wording."
    )
  if args.stretch:
    idle = [
      f"--{name}"
      for name in ("bands", "percentiles", "curve")
      if getattr(args, name) != defaults.get_default(name)
    ]
    if idle:
      raise command_line.UsageError(
        f"--stretch sets {', '.join(idle)}; leave them out."
      )


def _plan(args):
  from fusar_jax.datasets.prepare.preparation import Plan
  from fusar_jax.datasets.prepare.sources import Look, read_stretches

  look = Look(
    size=args.size,
    overlap=args.overlap,
    ground_sampling_distance=args.ground_sampling_distance,
    bands=args.bands,
    quantity=args.quantity,
    height=args.height,
    calibrate=None if args.calibrate == "none" else args.calibrate,
    nodata=args.nodata,
    percentiles=tuple(args.percentiles),
    curve=args.curve,
    stretches=read_stretches(args.stretch) if args.stretch else None,
  )
  return Plan(
    look=look,
    min_valid=args.min_valid,
    year=args.year,
    spacing=args.spacing,
    limit=args.limit,
    method=args.method,
    max_anchor_error=args.max_anchor_error,
    table=args.table,
    require_anchors=args.require_anchors,
    tasks=tuple(args.tasks),
    classes=tuple(args.classes),
    min_inside=args.min_inside,
    skip_empty=args.skip_empty,
    metadata_in_prompt=args.metadata_in_prompt,
  )


def _archive(args):
  from fusar_jax.datasets.prepare.options import open_aef

  return open_aef(args.aef, args.year) if args.aef else None


def _captions(args):
  from fusar_jax.datasets.prepare.captions import Captions
  from fusar_jax.datasets.prepare.map_features import read_map_features
  from fusar_jax.geo.land_cover import open_land_cover

  if not args.land_cover:
    return None
  land_cover = open_land_cover(
    args.land_cover, args.land_cover_table, args.land_cover_year
  )
  return lambda scenes: Captions(
    land_cover,
    read_map_features(args.features, scenes) if args.features else None,
    args.caption_style,
    args.caption_seed,
  )


def _nodata(text: str) -> float | str:
  return text if text == "none" else float(text)


if __name__ == "__main__":
  sys.exit(main())
