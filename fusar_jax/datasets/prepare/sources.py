"""Opens, names, plans and checks scenes before tiling.

All errors in a scene's options are detected here, before any file is written: a
missing band, an undeclared ground sampling distance, an unknown year. Scenes
contain only plain values; the raster is reopened for tiling.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.datasets.importers import image_files
from fusar_jax.datasets.importers.annotation_json import read_json
from fusar_jax.datasets.prepare.scene_names import names_of, scene_paths
from fusar_jax.geo import stac
from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.options import PERCENTILES
from fusar_jax.geo.position_error import WORTH_A_NOTE
from fusar_jax.geo.product_names import Metadata
from fusar_jax.geo.rasters import Raster, open_raster
from fusar_jax.geo.stretch import Stretch, fit_stretches, named_bands
from fusar_jax.geo.tiles import Tile, plan_tiles, scale_to


@dataclasses.dataclass(frozen=True)
class Look:
  """How a raster becomes 8-bit tiles.

  Attributes:
    size: sides of a tile, pixels; of a smaller scene, at most its own.
    overlap: of neighbouring tiles, pixels.
    ground_sampling_distance: of the tiles, metres; None: the raster's own.
    bands: "VV", or three for red, green and blue, "VV,VH,VV/VH"; "VV,VH" stands
      for these three. None: the first.
    quantity, nodata, calibrate: of `open_raster`; None: as declared, else
      guessed, and not calibrated.
    height: of the ground, metres, for rasters with RPC; see `open_raster`.
    percentiles, curve: of `fit_stretch`.
    stretches: to reapply, by the name of the scene to which they were fitted; a
      single one applies to all scenes. None: a stretch is fitted per scene.

  Raises:
    ValueError: percentiles out of order.
  """

  size: int = 504
  overlap: int = 0
  ground_sampling_distance: float | None = None
  bands: str | None = None
  quantity: str | None = None
  nodata: float | str | None = None
  calibrate: str | None = None
  height: float | None = None
  percentiles: tuple[float, float] = PERCENTILES
  curve: str | None = None
  stretches: Mapping[str, tuple[Stretch, ...]] | None = None

  def __post_init__(self):
    low, high = self.percentiles
    if not 0 <= low < high <= 100:
      raise ValueError(
        "expected two percentiles in rising order in 0..100, got"
        f" {self.percentiles}."
      )

  def open(self, path: str | os.PathLike, name: str) -> Raster:
    """Opens the raster of the scene `name` with these options."""
    return open_raster(
      path,
      nodata=self.nodata,
      quantity=self.quantity,
      bands=self._named_bands(name),
      calibrate=self.calibrate,
      height=self.height,
    )

  def stretches_of(
    self, name: str, raster: Raster, scale: tuple[float, float]
  ) -> tuple[Stretch, ...]:
    """Returns the given stretches, or fits them to the scene."""
    if self.stretches is not None:
      return self._replayed(name)
    return fit_stretches(
      raster,
      self.bands_of(name, raster),
      percentiles=self.percentiles,
      curve=self.curve,
      scale=scale,
    )

  def bands_of(self, name: str, raster: Raster) -> tuple[str, ...]:
    """Returns the selected bands: one or three."""
    return self._named_bands(name) or raster.bands[:1]

  def _named_bands(self, name: str) -> tuple[str, ...]:
    """The bands of the options; () for the first, whatever its name."""
    if self.stretches is not None:
      return tuple(stretch.band for stretch in self._replayed(name))
    if self.bands is None:
      return ()
    return named_bands(self.bands)

  def check_quantity(self, name: str, raster: Raster) -> None:
    """Raises ValueError if what is replayed was fitted to another quantity."""
    foreign = {s.quantity for s in self._replayed(name)} - {raster.detected}
    if foreign:
      raise ValueError(
        f"it holds {raster.detected}, but the stretch to replay is of"
        f" {', '.join(sorted(foreign))}; fit one, or state the quantity if that"
        " was guessed wrongly."
      )

  def _replayed(self, name: str) -> tuple[Stretch, ...]:
    stretches = self.stretches or {}
    if len(stretches) == 1:
      return next(iter(stretches.values()))
    if name not in stretches:
      raise ValueError(
        f"no stretch of a scene named {name!r} to replay; there are"
        f" {', '.join(sorted(stretches))}."
      )
    return stretches[name]


@dataclasses.dataclass(frozen=True)
class Scene:
  """One scene and its tiling parameters.

  Attributes:
    name: unique; prefix of ids and folder names.
    path: the file or product.
    sha256: of its bytes, or of its address.
    height, width: pixels.
    place: its georeference, or None.
    metadata: what is known of it.
    bands: that are shown.
    scale: its pixels per pixel of a tile, (rows, columns).
    year: of its anchors; None: unknown.
    position_error: bound in metres; None without a georeference.
    record: what was found and decided, for dataset.json.
  """

  name: str
  path: Path
  sha256: str
  height: int
  width: int
  place: Georeference | None
  metadata: Metadata
  bands: tuple[str, ...]
  scale: tuple[float, float]
  year: int | None
  position_error: float | None
  record: Mapping[str, Any]

  @property
  def shown(self) -> str:
    """Its path for messages, without the secrets of a URL."""
    return stac.shown(self.path)

  @property
  def file_name(self) -> str:
    """The last part of `shown`."""
    return Path(self.shown).name

  def tiles(self, look: Look) -> list[Tile]:
    """Returns its tiles, row by row."""
    return plan_tiles(
      self.height, self.width, look.size, look.overlap, self.scale
    )

  def is_placed(self, most: float | None) -> bool:
    """Whether its positions are known well enough for anchors.

    Args:
      most: limit of their error, metres; None: any error.
    """
    if self.place is None or self.position_error is None:
      return False
    return most is None or self.position_error <= most

  def shared_by_two(self, look: Look) -> float:
    """Returns the share of their pixels that the only two tiles share.

    0 where there is one row or column of tiles, or more than two. A scene a
    little larger than a tile gives two that are nearly copies.
    """
    tiles = self.tiles(look)
    shares = [0.0]
    for starts, side in (
      (sorted({tile.row for tile in tiles}), tiles[0].height),
      (sorted({tile.col for tile in tiles}), tiles[0].width),
    ):
      if len(starts) == 2:
        shares.append(1 - (starts[1] - starts[0]) / side)
    return round(max(shares), 3)

  def place_of(self, tile: Tile) -> Georeference | None:
    """Returns the georeference of a tile's image."""
    return self.place and self.place.tile(
      tile.row,
      tile.col,
      tile.height / tile.shape[0],
      tile.width / tile.shape[1],
    )


def open_scenes(
  paths: Sequence[str | os.PathLike], look: Look, year: int | None = None
) -> tuple[list[Scene], list[str]]:
  """Returns (scenes, one message per raster that cannot be used).

  Args:
    paths: rasters and products, as `open_raster` takes them.
    look: how they are cut.
    year: of the anchors; None: that of the scene's date.

  Raises:
    FileNotFoundError, ValueError: a path that is no file, or one named twice.
  """
  paths = scene_paths(paths)
  scenes, problems = [], []
  for path, name in zip(paths, names_of(paths)):
    try:
      scenes.append(_scene(path, name, look, year))
    except (ValueError, OSError) as error:
      text = str(error)
      shown = stac.shown(path)
      problems.append(text if shown in text else f"{shown}: {text}")
  return scenes, problems


def read_stretches(
  path: str | os.PathLike,
) -> dict[str, tuple[Stretch, ...]]:
  """Returns the stretches by scene that a dataset.json records.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a dataset.json of `prepare`.
  """
  card = read_json(path)
  try:
    found = {
      scene["name"]: tuple(map(Stretch.from_json, scene["stretches"]))
      for scene in card["scenes"]
    }
  except (TypeError, KeyError) as error:
    raise ValueError(
      f"{path}: no stretches ({error!r}); give the dataset.json that prepare"
      " wrote for another scene."
    ) from None
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
  if not found or not all(found.values()):
    raise ValueError(f"{path}: it records no stretch.")
  return found


def check_years(scenes: Sequence[Scene], archive: Archive) -> list[str]:
  """Returns one message per scene that the archive cannot cover."""
  problems = []
  for scene in scenes:
    if scene.place is None:
      continue
    if scene.year is None:
      problems.append(
        f"{scene.shown}: its date is not known; give the year of the AlphaEarth"
        f" vectors (there are {_listed(archive.years)})."
      )
    elif scene.year not in archive.years:
      problems.append(
        f"{scene.shown}: no AlphaEarth tiles of {scene.year}; years there are:"
        f" {_listed(archive.years)}."
      )
    elif not tiles_below(scene, archive):
      west, south, east, north = bounds_of(
        scene.place, scene.height, scene.width
      )
      problems.append(
        f"{scene.shown}: {archive.table.origin} holds AlphaEarth tiles of other"
        f" places only; the scene spans longitude {west:.4f} to {east:.4f},"
        f" latitude {south:.4f} to {north:.4f}."
      )
  return problems


def tiles_below(scene: Scene, archive: Archive) -> list[str]:
  """Returns the paths of the AlphaEarth tiles that a scene touches.

  Empty for a scene without a georeference or a year.
  """
  if scene.place is None or scene.year is None:
    return []
  bounds = bounds_of(scene.place, scene.height, scene.width)
  return archive.tiles_in(bounds, scene.year)


def resampled_below(scene: Scene, archive: Archive) -> list[str]:
  """Returns those of `tiles_below` that were resampled, by their first file.

  Raises:
    ValueError, OSError: a tile that cannot be read.
  """
  if scene.place is None or scene.year is None:
    return []
  bounds = bounds_of(scene.place, scene.height, scene.width)
  return archive.resampled_in(bounds, scene.year)


def bounds_of(
  place: Georeference, height: float, width: float
) -> tuple[float, float, float, float]:
  """Returns (west, south, east, north) of an image, degrees."""
  ring = place.footprint(height, width)
  west, south = ring.min(axis=0)
  east, north = ring.max(axis=0)
  return float(west), float(south), float(east), float(north)


def _scene(path, name, look, year) -> Scene:
  with look.open(path, name) as raster:
    bands = look.bands_of(name, raster)
    if len(bands) not in (1, 3):
      raise ValueError(
        f"expected one band, two or three, got {', '.join(bands)}; a composite"
        " of two is, for instance, VV,VH,VV/VH."
      )
    # Band names are validated by the raster.
    raster.read((0, 0, 1, 1), bands)
    if look.stretches is not None:
      look.check_quantity(name, raster)
    scale = (1.0, 1.0)
    if look.ground_sampling_distance is not None:
      scale = scale_to(raster, look.ground_sampling_distance)
    plan_tiles(raster.height, raster.width, look.size, look.overlap, scale)
    date = raster.metadata.date
    record = raster.to_json()
    error = raster.position_error()
    if error is not None:
      record["position_error"] = error.to_json()
      if error.metres >= WORTH_A_NOTE:
        record["notes"].append(
          f"positions may be off by {error.metres:.0f} m ({error.reason})"
        )
    return Scene(
      name=name,
      path=path,
      sha256=_digest(raster),
      height=raster.height,
      width=raster.width,
      place=raster.georeference,
      metadata=raster.metadata,
      bands=bands,
      scale=scale,
      year=year if year is not None else date and int(date[:4]),
      position_error=error and error.metres,
      record=record,
    )


def _digest(raster: Raster) -> str:
  """The hash of a file, or of the hashes of several; of a URL, of its text."""
  found = list(image_files.digests(raster.parts).values())
  found += [hashlib.sha256(a.encode()).hexdigest() for a in raster.addresses]
  if len(found) == 1:
    return found[0]
  return hashlib.sha256("".join(found).encode()).hexdigest()


def _listed(years) -> str:
  return ", ".join(map(str, years))
