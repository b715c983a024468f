"""Terminal output of `prepare`: progress, summary, settings, warnings."""

from pathlib import Path

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fusar_jax.datasets.prepare.card import SKIPPED
from fusar_jax.geo import grid_points
from fusar_jax.geo.anchors import ATTRIBUTION
from fusar_jax.geo.options import DECIBELS

# Two tiles that share a larger fraction of their pixels are near copies.
_NEAR_COPIES = 0.75


def print_summary(card: dict, out: Path, console: Console) -> None:
  """Prints a summary table, how each scene was read, and warnings."""
  scenes = card["scenes"]
  table = Table(title=Text(f"{card['rows']} rows in {out}"))
  table.add_column("scene", overflow="fold")
  for name in ("tiles", "kept", "with anchors", "targets shown"):
    table.add_column(name, justify="right")
  table.add_column("skipped")
  for scene in scenes:
    targets = scene["targets"]
    table.add_row(
      Text(scene["name"]),
      str(scene["tiles"]),
      str(scene["kept"]),
      str(scene["anchors"]["tiles"]),
      str(targets["shown"]) if targets else "-",
      ", ".join(f"{n} {SKIPPED[why]}" for why, n in scene["skipped"].items()),
    )
  console.print(table)
  for line in (line for scene in scenes for line in _notes(scene)):
    console.print(line, markup=False, highlight=False, soft_wrap=True)
  if made := card.get("captions"):
    console.print(
      f"{made['number']} captions from {made['land_cover']} of"
      f" {made['year'] or 'an unknown year'}"
      + (f" and {', '.join(made['features'])}" if made["features"] else "")
      + f", style {made['style']}, seed {made['seed']}",
      markup=False,
      highlight=False,
      soft_wrap=True,
    )
  for line in _warnings(card):
    console.print(line, markup=False, style="yellow", soft_wrap=True)
  if card["alphaearth"]:
    console.print(ATTRIBUTION, soft_wrap=True)


def _notes(scene):
  """Yields lines on how a scene was read."""
  nodata = scene["nodata"]
  stretches = (
    f"{s['band']} from {s['low']:.4g} to {s['high']:.4g}"
    f" {'dB' if s['curve'] == DECIBELS else 'in amplitude'}"
    for s in scene["stretches"]
  )
  yield (
    f"{scene['name']}: {scene['quantity']} ({scene['quantity_reason']}); nodata"
    f" {nodata['value']} ({nodata['origin']}: {nodata['reason']});"
    f" {', '.join(stretches)}"
  )
  anchors, targets = scene["anchors"], scene["targets"]
  if anchors["tiles"]:
    yield (
      f"  AlphaEarth of {scene['aef_year']} at {anchors['found']} of"
      f" {anchors['nodes']} grid points"
    )
  if targets:
    yield (
      f"  {targets['in_scene']} targets, shown {targets['shown']} times;"
      f" {targets['in_no_tile']} in no tile"
    )
  yield from (f"  {note}" for note in scene["notes"])


def _warnings(card):
  """Yields warnings about probably unintended results."""
  for scene in card["scenes"]:
    if (shared := scene["shared_by_two"]) > _NEAR_COPIES:
      yield (
        f"{scene['name']}: two tiles share {100 * shared:.0f} % of their"
        " pixels, since the scene is little larger than one; another --size"
        " avoids such near copies."
      )
    limit = card["settings"]["max_anchor_error"]
    bound = (scene.get("position_error") or {"metres": 0})["metres"]
    if limit is not None and (bound is None or bound > limit):
      yield (
        f"{scene['name']}: no anchors, since its positions may be off by more"
        f" than {limit:g} m."
      )
    if thin := scene["anchors"]["thin_tiles"]:
      yield (
        f"{scene['name']}: {thin} tiles have AlphaEarth below less than"
        f" {100 * grid_points.MIN_SHARE:.0f} % of their grid points."
      )
  if resampled := (card["alphaearth"] or {}).get("resampled"):
    yield (
      f"AlphaEarth of {', '.join(resampled[:4])} was resampled: its pixels are"
      " not the published ones of 10 m."
    )
  if card["labels_elsewhere"]:
    yield f"{card['labels_elsewhere']} labels lie in none of the scenes."
  made = card.get("captions")
  tiles = sum(scene["kept"] for scene in card["scenes"])
  if made and (bare := tiles - made["number"]):
    yield f"{bare} of {tiles} tiles are {SKIPPED['no_land_cover']}: no caption."
  if not card["labelled"] and not made:
    yield (
      "No labels: the answers are empty. These rows are for predict, not for"
      " training."
    )
  if card["rejected"]:
    yield f"{card['rejected']} rejected, listed in rejected.txt."


def progress_bar(console: Console) -> Progress:
  """Returns the bar of the tiles; nothing is shown without a terminal."""
  return Progress(
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
    console=console,
    transient=True,
    disable=not console.is_terminal,
  )
