"""What the command lines of `prepare` and `interpret` have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence

from fusar_jax.datasets.prepare.labels import Labels, read_labels
from fusar_jax.datasets.prepare.sources import Scene, bounds_of
from fusar_jax.geo.alphaearth import Archive, open_archive
from fusar_jax.geo.alphaearth_index_files import is_index


def open_aef(
  sources: Sequence[str], year: int | None
) -> Callable[[Sequence[Scene]], Archive]:
  """Returns what opens the archive of `--aef` for scenes.

  Of an index, tiles at the scenes alone are read.

  Args:
    sources: of `--aef`.
    year: of `--year`, or None. It applies only to rasters whose names contain
      none; it must not override a year that a name contains.

  What it opens raises FileNotFoundError, PermissionError, ConnectionError or
  ValueError, as `open_archive`.
  """

  def opened(scenes: Sequence[Scene]) -> Archive:
    within = [
      bounds_of(scene.place, scene.height, scene.width)
      for scene in scenes
      if scene.place is not None
    ] or None
    try:
      return open_archive(sources, within=within, progress=_print_progress)
    except ValueError:
      if year is None or all(map(is_index, sources)):
        raise
      return open_archive(sources, year=year, within=within)

  return opened


def _print_progress(name: str, done: int, size: int) -> None:
  end = "\r" if sys.stderr.isatty() else "\n"
  text = f"{name}: {done >> 20} of {size >> 20} MB"
  # Without a terminal, a line every 100 MB.
  if end == "\r" or done % (100 << 20) < 8 << 20:
    print(text, end=end, file=sys.stderr, flush=True)


def label_reader(
  args: argparse.Namespace, *, unmentioned_are_empty: bool
) -> Callable[[Sequence[Scene]], Labels] | None:
  """Returns what reads the files of `--labels` for scenes; None without any.

  Args:
    args: with the options `--labels`, `--labels-crs`, `--label-field` and
      `--point-size`.
    unmentioned_are_empty: see `read_labels`.
  """
  if not args.labels:
    return None
  return lambda scenes: read_labels(
    args.labels,
    scenes,
    crs=args.labels_crs,
    field=args.label_field,
    point_size=args.point_size,
    unmentioned_are_empty=unmentioned_are_empty,
  )
