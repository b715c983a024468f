"""SAR scenes, AlphaEarth and labels to a data set folder.

  images/SCENE/TILE.png    8 bits, by one stretch per scene
  anchors/SCENE/TILE.npz   AlphaEarth vectors at grid points of the tile
  manifest.jsonl           rows: tile, anchors, question, answer, metadata
  dataset.json             data set card: sources, licences, options
  rejected.txt             corrupt inputs that were skipped, if any

Tiles are processed in a fixed order, so the same scenes and options give the
same bytes. An interrupted run resumes where it stopped (`journal`). The
manifest is written last, after all files to which it refers.
"""

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fusar_jax.data.triplets import (
  raise_together,
  write_manifest,
)
from fusar_jax.datasets.importers.box_dataset import check_tasks
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.targets import TASKS
from fusar_jax.datasets.prepare.captions import Captions, check_places
from fusar_jax.datasets.prepare.card import (
  KEPT,
  SceneResult,
  archive_identity,
  nothing_left,
  write_card,
)
from fusar_jax.datasets.prepare.journal import (
  NAME,
  Journal,
  differences,
  open_journal,
)
from fusar_jax.datasets.prepare.labels import Labels, classes_to_ask
from fusar_jax.datasets.prepare.rows import (
  CAPTION,
  Question,
  targets_in_tile,
  tile_metadata,
  tile_rows,
)
from fusar_jax.datasets.prepare.sources import (
  Look,
  Scene,
  bounds_of,
  check_years,
  open_scenes,
)
from fusar_jax.geo import grid_points as nodes_lib
from fusar_jax.geo import options
from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.anchors import write_anchors
from fusar_jax.geo.stretch import Stretch
from fusar_jax.geo.tiles import Tile, render

# Incremented whenever the same options no longer give the same bytes.
VERSION = 2
MANIFEST, CARD = "manifest.jsonl", "dataset.json"


@dataclasses.dataclass(frozen=True)
class Plan:
  """Options of the preparation.

  Attributes:
    look: tiling options.
    min_valid: minimum share of valid pixels in a tile.
    year: of the anchors; None: that of each scene's date.
    spacing, limit, method: of `nodes.make_anchors`.
    table: also write the official .npy for each .npz.
    max_anchor_error: metres by which the positions of a scene may be off;
      beyond, it has no anchors. None: any error.
    require_anchors: skip tiles without AlphaEarth below them.
    tasks, classes: of the generated rows; no class: all that occur.
    min_inside: minimum share of a box inside a tile.
    skip_empty: skip tiles without a target.
    metadata_in_prompt: prepend the image metadata to the question.
    asked: of tiles without labels.

  Raises:
    ValueError: a share outside of (0, 1], an unknown task or method.
  """

  look: Look = Look()
  min_valid: float = 0.5
  year: int | None = None
  spacing: float = options.SPACING
  limit: int = options.LIMIT
  method: str = "nearest"
  max_anchor_error: float | None = None
  table: bool = False
  require_anchors: bool = False
  tasks: tuple[str, ...] = TASKS
  classes: tuple[str, ...] = ()
  min_inside: float = 0.5
  skip_empty: bool = False
  metadata_in_prompt: bool = False
  asked: tuple[Question, ...] = (CAPTION,)

  def __post_init__(self):
    check_tasks(self.tasks)
    for name in ("min_valid", "min_inside"):
      if not 0 < getattr(self, name) <= 1:
        raise ValueError(
          f"{name} must be in (0, 1], not {getattr(self, name)}."
        )
    if self.method not in ("nearest", "bilinear"):
      raise ValueError(f'method "nearest" or "bilinear", not {self.method!r}.')
    if self.max_anchor_error is not None and not self.max_anchor_error >= 0:
      raise ValueError(
        f"expected a limit of at least 0 m, got {self.max_anchor_error}."
      )
    if not self.spacing > 0 or self.limit < 1:
      raise ValueError(
        f"expected a spacing above 0 m and a limit of at least 1, got"
        f" {self.spacing} and {self.limit}."
      )

  def to_json(self) -> dict[str, Any]:
    """Returns plain values, flat."""
    look = {
      f.name: getattr(self.look, f.name) for f in dataclasses.fields(Look)
    }
    if self.look.stretches is not None:
      look["stretches"] = {
        name: [stretch.to_json() for stretch in each]
        for name, each in self.look.stretches.items()
      }
    plain = look | {
      f.name: getattr(self, f.name)
      for f in dataclasses.fields(Plan)
      if f.name not in ("look", "asked")
    }
    # Folders from before this option remain valid.
    if self.asked != (CAPTION,):
      plain["asked"] = [dataclasses.asdict(each) for each in self.asked]
    return plain


def prepare_scenes(
  paths: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  plan: Plan,
  origin: Origin,
  *,
  archive: Archive | Callable[[Sequence[Scene]], Archive] | None = None,
  read_labels: Callable[[Sequence[Scene]], Labels] | None = None,
  read_captions: Callable[[Sequence[Scene]], Captions] | None = None,
  drop_rejected: bool = False,
  on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
  """Writes the data set folder OUT; returns its card, dataset.json.

  Args:
    paths: SAR rasters.
    out: output folder; may have been started or completed with the same scenes
      and options.
    plan: options.
    origin: of the scenes.
    archive: `alphaearth.open_archive`, or what opens it for the scenes
      (`options.open_aef`); None: no anchors.
    read_labels: returns the targets of the scenes, see `labels`; None:
      rows ask `plan.asked`, and have no answer.
    read_captions: returns what describes the scenes, for a caption row per
      tile; without labels, these are the only rows.
    drop_rejected: skip corrupt inputs and list them in rejected.txt.
    on_tile: called with (tiles done, total tiles).

  Raises:
    FileExistsError: `out` contains other files, or was started with other
      options.
    FileNotFoundError, ValueError: invalid input, or no tile is left.
  """
  out = Path(out)
  scenes, rejected = open_scenes(paths, plan.look, plan.year)
  if not drop_rejected or not scenes:
    raise_together(rejected, "SAR rasters that cannot be used")
  if callable(archive):
    archive = archive(scenes)
  if archive is not None:
    placed = [s for s in scenes if s.is_placed(plan.max_anchor_error)]
    raise_together(
      check_years(placed, archive), "scenes without AlphaEarth vectors"
    )
  captions = read_captions(scenes) if read_captions else None
  if captions is not None:
    raise_together(check_places(scenes, captions), "scenes without land cover")
  labels = read_labels(scenes) if read_labels else None
  plan = dataclasses.replace(
    plan, classes=classes_to_ask(labels, plan.classes, plan.tasks)
  )
  settings = _settings(scenes, plan, origin, archive, labels, rejected)
  if captions is not None:
    settings |= captions.to_json(scenes)
  if (card := _finished(out, settings)) is not None:
    return card
  with open_journal(out, settings) as journal:
    work = _Work(plan, journal, archive, labels, captions, drop_rejected)
    total = sum(len(scene.tiles(plan.look)) for scene in scenes)
    done = 0
    results = []
    for scene in scenes:
      for _ in work.cut(scene):
        done += 1
        on_tile(done, total)
      results.append(work.result(scene))
    kept = [entry for result in results for entry in result.kept]
    if not kept:
      journal.delete()
      raise ValueError(nothing_left(results))
    card = write_card(
      out / CARD, results, labels, archive, origin, settings, rejected
    )
    # Last, when all files to which it refers exist.
    write_manifest(
      out / MANIFEST, [row for entry in kept for row in entry["rows"]]
    )
    journal.delete()
  return card


class _Work:
  """Cuts scenes into tiles and records each in the journal."""

  def __init__(
    self, plan, journal: Journal, archive, labels, captions, drop_rejected
  ):
    self.plan = plan
    self.journal = journal
    self.archive = archive
    self.labels = labels
    self.captions = captions
    self._drop_rejected = drop_rejected

  def cut(self, scene: Scene) -> Iterator[None]:
    """Yields after each tile, including those of a previous run."""
    look = self.plan.look
    with contextlib.ExitStack() as stack:
      raster = None
      for tile in scene.tiles(look):
        entry = self.journal.entries.get(_key(scene, tile))
        if entry is None or not self.journal.is_intact(entry["files"]):
          if raster is None:
            raster = stack.enter_context(look.open(scene.path, scene.name))
          self.journal.enter(_key(scene, tile), self._tile(scene, tile, raster))
        yield

  def result(self, scene: Scene) -> SceneResult:
    """What became of a scene that was cut."""
    entries = self.journal.entries
    tiles = scene.tiles(self.plan.look)
    return SceneResult(
      scene,
      scene.shared_by_two(self.plan.look),
      entries.get(scene.name, []),
      {tile.name: entries[_key(scene, tile)] for tile in tiles},
    )

  def _stretches(self, scene, raster) -> list[Stretch]:
    """Fitted once, and kept in the journal."""
    if scene.name not in self.journal.entries:
      fitted = self.plan.look.stretches_of(scene.name, raster, scene.scale)
      self.journal.enter(scene.name, [s.to_json() for s in fitted])
    return [Stretch.from_json(s) for s in self.journal.entries[scene.name]]

  def _tile(self, scene, tile, raster) -> dict:
    """Writes the files of a tile; returns its entry."""
    plan = self.plan
    entry = {"outcome": KEPT, "files": {}, "anchors": None, "targets": []}
    try:
      stretches = self._stretches(scene, raster)
      picture, valid = render(raster, stretches, tile)
    except ValueError as error:
      if not self._drop_rejected:
        raise
      return entry | {"outcome": "damaged", "why": str(error)}
    if valid < plan.min_valid:
      return entry | {"outcome": "nodata"}
    targets = None
    if self.labels is not None:
      targets, entry["targets"] = targets_in_tile(
        self.labels.targets[scene.name], tile, plan.min_inside
      )
      if plan.skip_empty and not targets:
        return entry | {"outcome": "empty"}
    place = scene.place_of(tile)
    nodes = self._nodes(scene, place, tile.shape)
    if nodes is not None:
      entry["anchors"] = [len(nodes.places), nodes.inside]
    if plan.require_anchors and (nodes is None or nodes.anchors is None):
      return entry | {"outcome": "no_anchors"}
    stem = f"{scene.name}/{tile.name}"
    caption = None
    if self.captions is not None:
      caption = self.captions.row(stem, tile.shape, place, targets)
      if caption is None and targets is None:
        return entry | {"outcome": "no_land_cover"}
    names = {"image": f"images/{stem}.png"}
    self.journal.write_bytes(
      names["image"], _png(picture, is_grey=len(stretches) == 1)
    )
    files = [names["image"]]
    if nodes is not None and nodes.anchors is not None:
      names["aef"] = f"anchors/{stem}.npz"
      files.append(names["aef"])
      write_anchors(self.journal.folder / names["aef"], nodes.anchors)
      if plan.table:
        files.append(f"anchors/{stem}.npy")
        nodes.write_table(self.journal.folder / files[-1])
    known = tile_metadata(scene.name, tile, scene.metadata, scene.bands, place)
    rows = tile_rows(
      stem,
      tile.shape,
      known,
      targets,
      plan.classes,
      plan.tasks,
      in_prompt=plan.metadata_in_prompt,
      asked=plan.asked if caption is None else (),
      further=[] if caption is None else [caption],
    )
    entry["files"] = self.journal.digests(files)
    entry["rows"] = [{"id": row["id"], **names, **row} for row in rows]
    return entry

  def _nodes(self, scene, place, shape):
    """What the archive has below a tile; None where no tile of it lies."""
    if self.archive is None or place is None:
      return None
    if not scene.is_placed(self.plan.max_anchor_error):
      return None
    if not self.archive.tiles_in(bounds_of(place, *shape), scene.year):
      return None
    return nodes_lib.make_anchors(
      place,
      shape,
      self.archive,
      scene.year,
      spacing=self.plan.spacing,
      limit=self.plan.limit,
      method=self.plan.method,
      # Reported once for all tiles, at the end.
      min_share=0.0,
    )


def _settings(scenes, plan, origin, archive, labels, rejected) -> dict:
  """Returns, flat, all settings on which the folder's content depends."""
  settings = {
    "version": VERSION,
    **plan.to_json(),
    **dataclasses.asdict(origin),
    "scenes": [scene.name for scene in scenes],
    **{f"scene {scene.name}": scene.sha256 for scene in scenes},
    "refused": rejected,  # The key of folders that are resumed.
    "labels": labels and labels.record,
    "alphaearth": archive and archive_identity(archive),
  }
  return json.loads(json.dumps(settings))


def _finished(out: Path, settings) -> dict | None:
  """Returns the card of a complete folder made with these settings."""
  if (out / NAME).exists() or not (out / MANIFEST).is_file():
    return None
  try:
    card = json.loads((out / CARD).read_text("utf-8"))
    before = card["settings"]
  except (OSError, ValueError, TypeError, KeyError):
    return None
  if changed := differences(before, settings):
    raise FileExistsError(
      f"{out} was made with other settings:\n  "
      + "\n  ".join(changed)
      + "\nGive a new folder."
    )
  if "refused" in card:  # The key's name in older cards.
    card["rejected"] = card.pop("refused")
  return card


def _key(scene: Scene, tile: Tile) -> str:
  return f"{scene.name}/{tile.name}"


def _png(picture, *, is_grey: bool) -> bytes:
  file = io.BytesIO()
  Image.fromarray(picture[..., 0] if is_grey else picture).save(file, "PNG")
  return file.getvalue()
