"""Data set card (dataset.json) of prepared scenes.

The card contains what is needed to assess or reproduce the data: metadata read
from and guessed for each raster, the stretch to 8 bits (which can be reapplied
to another scene), the number of skipped tiles by reason, the attribution of the
anchors, and the hash of every file.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.data.triplets import write_text
from fusar_jax.datasets.importers import duplicates
from fusar_jax.datasets.importers.dataset_folder import Origin, write_rejected
from fusar_jax.datasets.prepare.labels import Labels
from fusar_jax.datasets.prepare.sources import (
  Scene,
  resampled_below,
  tiles_below,
)
from fusar_jax.geo import grid_points
from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.anchors import ATTRIBUTION

KEPT = "kept"
# Reasons to skip a tile, in the order in which they are checked.
SKIPPED = {
  "damaged": "cannot be read",
  "nodata": "mostly nodata",
  "empty": "no target in it",
  "no_anchors": "no AlphaEarth below it",
  "no_land_cover": "mostly without land cover",
}


@dataclasses.dataclass(frozen=True)
class SceneResult:
  """Result of preparing one scene.

  Attributes:
    scene: the scene.
    shared: overlap of its only two tiles, as a share of their pixels.
    stretches: as returned by `Stretch.to_json`.
    tiles: by name, as they were entered in the journal: "outcome" (KEPT, or of
      SKIPPED, then "why" may give details), "files" (hash by name), "rows",
      "anchors" ([found, nodes in the image] or None) and "targets" (places in
      the scene's list).
  """

  scene: Scene
  shared: float
  stretches: Sequence[Mapping[str, Any]]
  tiles: Mapping[str, Mapping[str, Any]]

  @functools.cached_property
  def kept(self) -> list[Mapping[str, Any]]:
    return [e for e in self.tiles.values() if e["outcome"] == KEPT]

  @property
  def skipped(self) -> dict[str, int]:
    """Number of tiles by outcome."""
    counts = collections.Counter(e["outcome"] for e in self.tiles.values())
    return {name: counts[name] for name in SKIPPED if counts[name]}

  @property
  def damaged(self) -> list[str]:
    """One message per unreadable tile."""
    return [
      f"{self.scene.file_name} {name}: {entry['why']}"
      for name, entry in self.tiles.items()
      if entry["outcome"] == "damaged"
    ]

  @property
  def anchored(self) -> list[Mapping[str, Any]]:
    """Tiles that have anchors."""
    return [e for e in self.kept if e["anchors"] and e["anchors"][0]]


def write_card(
  path: Path,
  results: Sequence[SceneResult],
  labels: Labels | None,
  archive: Archive | None,
  origin: Origin,
  settings: Mapping[str, Any],
  rejected: Sequence[str],
) -> dict[str, Any]:
  """Writes dataset.json, and rejected.txt if needed; returns the card.

  Args:
    path: of dataset.json.
    results: of the scenes, in order.
    labels: their targets.
    archive: of the anchors.
    origin: of the scenes.
    settings: everything on which the data depends.
    rejected: rejected rasters, with reasons.
  """
  rejected = [*rejected, *(message for r in results for message in r.damaged)]
  kept = [entry for result in results for entry in result.kept]
  hashes = {k: v for entry in kept for k, v in entry["files"].items()}
  images = {k: v for k, v in hashes.items() if k.startswith("images/")}
  card = {
    "importer": "scenes",
    **dataclasses.asdict(origin),
    "alphaearth": _attribution(results, archive),
    "labelled": labels is not None,
    "labels_elsewhere": labels.elsewhere if labels else 0,
    "classes": settings["classes"],
    "tasks": _asked(kept, settings["tasks"] if labels else ()),
    **_captions(kept, settings),
    "targets": sum(len(entry["targets"]) for entry in kept),
    "images": len(images),
    "rows": sum(len(entry["rows"]) for entry in kept),
    "rejected": len(rejected),
    "scenes": [_record(result, labels) for result in results],
    "settings": settings,
    "identical_images": [
      list(copies.names) for copies in duplicates.find_copies(images)
    ],
    "sha256": images,
    "anchors_sha256": {k: v for k, v in hashes.items() if k not in images},
  }
  write_rejected(path.parent, rejected)
  text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
  write_text(path, text)
  return json.loads(text)


def nothing_left(results: Sequence[SceneResult]) -> str:
  """Returns the reasons why no tile is left, for an error message."""
  lines = []
  for result in results:
    scene = result.scene
    reasons = [f"{n} {SKIPPED[key]}" for key, n in result.skipped.items()]
    lines.append(
      f"{scene.file_name} ({scene.height} x {scene.width} pixels): of"
      f" {len(result.tiles)} tiles {', '.join(reasons)}"
    )
    nodata = scene.record["nodata"]
    lines[-1] += f"; nodata is {nodata['value']} ({nodata['reason']})"
  return (
    "no tile is left:\n  "
    + "\n  ".join(
      [*lines, *(message for r in results for message in r.damaged[:1])]
    )
    + "\nWhich value is nodata, and how much of it is too much, can be stated:"
    " --nodata, --min-valid."
  )


def archive_identity(archive: Archive) -> str:
  """Returns a hash of the tile list, independent of the archive's path."""
  table = archive.table
  digest = hashlib.sha256()
  for row in zip(
    map(os.path.basename, table.paths),
    table.years.tolist(),
    table.crs,
    table.bounds.tolist(),
  ):
    digest.update(json.dumps(row).encode())
  return digest.hexdigest()


def _record(result: SceneResult, labels) -> dict:
  scene, anchored = result.scene, result.anchored
  found, inside = (sum(e["anchors"][i] for e in anchored) for i in (0, 1))
  targets = None
  if labels is not None:
    seen = {place for entry in result.kept for place in entry["targets"]}
    targets = {
      "in_scene": len(labels.targets[scene.name]),
      "shown": sum(len(entry["targets"]) for entry in result.kept),
      "in_no_tile": len(labels.targets[scene.name]) - len(seen),
    }
  return {
    "name": scene.name,
    "sha256": scene.sha256,
    **scene.record,
    "scale": list(scene.scale),
    "bands_shown": list(scene.bands),
    "stretches": list(result.stretches),
    "tiles": len(result.tiles),
    "shared_by_two": result.shared,
    "kept": len(result.kept),
    "skipped": result.skipped,
    "aef_year": scene.year if anchored else None,
    "anchors": {
      "tiles": len(anchored),
      "nodes": inside,
      "found": found,
      "thin_tiles": sum(
        e["anchors"][0] < grid_points.MIN_SHARE * e["anchors"][1]
        for e in anchored
      ),
    },
    "targets": targets,
  }


def _asked(kept, tasks) -> list[str]:
  """Returns the tasks of labelled rows, then further ones that occur."""
  rows = (row for entry in kept for row in entry["rows"])
  found = {row["task"] for row in rows if "task" in row}
  return [*tasks, *sorted(found - set(tasks))]


def _captions(kept, settings) -> dict[str, Any]:
  """Returns what captions were made from, and how many; {} without any."""
  if "caption_table" not in settings:
    return {}
  rows = [row for entry in kept for row in entry["rows"]]
  source = {
    "number": sum("described_from" in row for row in rows),
    "land_cover": settings["caption_table"],
    **{
      name: settings[f"caption_{name}"]
      for name in ("year", "features", "style", "seed")
    },
  }
  return {"captions": source}


def _attribution(results, archive) -> dict | None:
  """Returns the attribution that AlphaEarth requires, and the tiles read."""
  scenes = [result.scene for result in results if result.anchored]
  if not scenes:
    return None
  return {
    "attribution": ATTRIBUTION,
    "license": "CC-BY 4.0",
    "years": sorted({scene.year for scene in scenes}),
    "tiles": sorted(
      {
        os.path.basename(path)
        for scene in scenes
        for path in tiles_below(scene, archive)
      }
    ),
    # Not of the published pixels, such as exports in degrees.
    "resampled": sorted(
      {
        os.path.basename(path)
        for scene in scenes
        for path in resampled_below(scene, archive)
      }
    ),
  }
