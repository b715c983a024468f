"""Captions of tiles from land cover and map features.

A tile below which less than half is mapped gets no caption. Of the same maps,
tile name and seed, the text is the same.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.datasets.importers import image_files
from fusar_jax.datasets.importers.targets import Target
from fusar_jax.datasets.prepare.map_features import MapFeatures
from fusar_jax.datasets.prepare.sources import Scene
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.land_cover import LandCover
from fusar_jax.tasks import captioning, class_names
from fusar_jax.tasks.description import measures, sentences, short
from fusar_jax.tasks.description.ground import Ground

STYLES = ("full", "short")
MIN_MAPPED = 0.5


@dataclasses.dataclass(frozen=True)
class _Seen:
  """A target as descriptions see it."""

  kind: str
  box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Captions:
  """What tiles are described from, and how.

  Attributes:
    land_cover: the product.
    features: of maps, or None: buildings, roads and the like are unknown.
    style: of STYLES: with shares and places, or the terse texts of simulated
      scenes.
    seed: selects the wordings of full texts.
  """

  land_cover: LandCover
  features: MapFeatures | None = None
  style: str = STYLES[0]
  seed: int = 0

  def __post_init__(self):
    if self.style not in STYLES or self.seed < 0:
      raise ValueError(
        f"expected a caption style of {', '.join(STYLES)} and a seed of at"
        f" least 0, got {self.style!r} and {self.seed}."
      )

  def to_json(self, scenes: Sequence[Scene]) -> dict[str, Any]:
    """Returns, flat, all on which the captions of scenes depend."""
    below = {
      raster.path
      for scene in scenes
      if scene.place is not None
      for raster in self.land_cover.below(
        scene.place, scene.height, scene.width
      )
    }
    table = self.land_cover.table
    found = {
      "table": table.name,
      "classes": {str(k): v for k, v in sorted(table.covers.items())},
      "year": self.land_cover.year,
      "land_cover": _digests(below),
      "features": self.features and list(self.features.assigned),
      "feature_files": self.features and _digests(self.features.files),
      "style": self.style,
      "seed": self.seed,
    }
    return {f"caption_{name}": value for name, value in found.items()}

  def row(
    self,
    name: str,
    size: int,
    place: Georeference | None,
    targets: Sequence[Target] | None,
  ) -> dict[str, Any] | None:
    """Returns the caption row of a tile, all but its files and metadata.

    None if most of the tile is unmapped.

    Args:
      name: of the tile; begins the id and selects the wording.
      size: sides of the tile, pixels.
      place: of the tile.
      targets: in the tile, in its pixels; None: unknown.
    """
    ground = self.ground(place, size) if place is not None else None
    if ground is None or measures.unmapped_share(ground) > 1 - MIN_MAPPED:
      return None
    seen = None
    if targets is not None:
      seen = [_Seen(class_names.coarse(t.label), t.box) for t in targets]
    if self.style == "short":
      fields = short.describe(ground, seen)
    else:
      fields = sentences.describe(ground, seen, self._generator(name))
    return {
      "id": f"{name}-captioning",
      "task": "captioning",
      "coordinate_size": [size, size],
      "question": captioning.question(),
      "answer": captioning.answer(fields),
      "described_from": {
        "land_cover": self.land_cover.table.name,
        "year": self.land_cover.year,
        "mapped": round(1 - measures.unmapped_share(ground), 4),
        "features": sorted(self.features.kinds) if self.features else None,
      },
    }

  def ground(self, place: Georeference, size: int) -> Ground:
    """Returns the maps of a tile of size x size pixels.

    Raises:
      ValueError: see `LandCover.sample`.
    """
    cover = self.land_cover.sample(place, size, size)
    gsd = float(np.mean(place.ground_sampling_distance(size, size)))
    if self.features is None:
      nothing = np.zeros_like(cover)
      return Ground(gsd, cover, nothing, None, mapped=frozenset())
    return self.features.ground(place, cover, gsd)

  def _generator(self, name) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng(
      [self.seed, int.from_bytes(digest[:8], "little")]
    )


def check_places(scenes: Sequence[Scene], captions: Captions) -> list[str]:
  """Returns one message per scene that the land cover cannot describe."""
  problems = []
  for scene in scenes:
    if scene.place is None:
      problems.append(
        f"{scene.path}: no georeference, so no land cover can be found below"
        " it; prepare it in another folder without land cover."
      )
    elif not captions.land_cover.below(scene.place, scene.height, scene.width):
      ring = scene.place.footprint(scene.height, scene.width)
      (west, south), (east, north) = ring.min(0), ring.max(0)
      problems.append(
        f"{scene.path}: the land cover is of other places only; the scene"
        f" spans longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to"
        f" {north:.4f}."
      )
  return problems


def _digests(paths) -> list[str]:
  """Name and SHA-256 of each file; names may be equal."""
  found = image_files.digests(sorted(map(Path, paths)))
  return sorted(f"{path.name} {digest}" for path, digest in found.items())
