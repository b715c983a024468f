"""Labels of scenes: from COCO, GeoJSON, VOC or CSV to boxes in scene pixels.

Labels are assigned to scenes by the raster's name, with or without its
extension; names are compared, never opened. GeoJSON features are assigned by
location, to each scene that they touch.

  CSV      scene,x1,y1,x2,y2,label in pixels of the scene; with one scene the
           column may be missing. A line with a scene alone: it holds no target.
  GeoJSON  polygons, longitude and latitude, or the CRS that the file or the
           user names; the box is the one around the outline in pixels.
  COCO     instances; VOC: one file per scene, of its name.

A scene without labels is an error unless it is declared empty. Otherwise its
tiles would be trained as images without targets.
"""

import collections
import csv
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.data.triplets import raise_together
from fusar_jax.datasets.importers import coco, image_files, voc
from fusar_jax.datasets.importers.annotation_json import read_json
from fusar_jax.datasets.importers.targets import (
  Target,
  check_overlap,
  enclosing,
  pixels,
)
from fusar_jax.datasets.prepare.sources import Scene, bounds_of
from fusar_jax.geo import georeference

SCENE_CRS = "scene"
_CSV = ("x1", "y1", "x2", "y2", "label")
_NAMES = ("label", "class", "name", "category")


@dataclasses.dataclass(frozen=True)
class Labels:
  """Targets of scenes.

  Attributes:
    targets: by the scene's name, in its pixels.
    elsewhere: number of labels that belong to none of the scenes.
    record: files, hashes and options, for dataset.json.
  """

  targets: Mapping[str, tuple[Target, ...]]
  elsewhere: int
  record: Mapping[str, Any]


def read_labels(
  paths: Sequence[str | os.PathLike],
  scenes: Sequence[Scene],
  *,
  crs: str | None = None,
  field: str | None = None,
  unmentioned_are_empty: bool = False,
) -> Labels:
  """Returns the targets of scenes.

  Args:
    paths: label files.
    scenes: scenes to be tiled.
    crs: of GeoJSON: "scene" (each scene's own), "EPSG:..." or WKT; None: as the
      file tells, else longitude and latitude.
    field: GeoJSON property that names the class; None: the first of label,
      class, name and category that a feature has.
    unmentioned_are_empty: scenes without labels contain no targets.

  Raises:
    FileNotFoundError: a missing file.
    ValueError: an unsupported file, bad labels (all are listed), or a scene
      without labels.
  """
  found = _Found(scenes)
  for path in map(Path, paths):
    suffix = path.suffix.lower()
    if not path.is_file():
      raise FileNotFoundError(f"label file not found: {path}")
    if suffix == ".csv":
      _read_csv(path, found)
    elif suffix == ".xml":
      _read_voc(path, found)
    elif suffix in (".json", ".geojson"):
      told = read_json(path)
      kind = told.get("type") if isinstance(told, dict) else None
      if kind in ("FeatureCollection", "Feature"):
        _read_geojson(path, told, found, crs, field)
      else:
        _read_coco(path, found)
    else:
      raise ValueError(
        f"{path}: labels are .csv, .geojson, .json (COCO or GeoJSON) or .xml"
        " (VOC)."
      )
  raise_together(found.problems, "bad labels")
  silent = [s.path.name for s in scenes if s.name not in found.targets]
  if silent and not unmentioned_are_empty:
    raise ValueError(
      f"the labels do not mention {', '.join(silent)}. If there is no target,"
      " say that unmentioned scenes are empty; if nobody has looked, prepare"
      " them without labels, in a folder of their own."
    )
  return Labels(
    {s.name: tuple(found.targets.get(s.name, ())) for s in scenes},
    found.elsewhere,
    {
      "files": {
        path.name: digest
        for path, digest in image_files.digests(map(Path, paths)).items()
      },
      "crs": crs,
      "field": field,
      "unmentioned_are_empty": unmentioned_are_empty,
    },
  )


class _Found:
  """Collects targets and problems of labels."""

  def __init__(self, scenes):
    self.scenes = scenes
    self.targets = {}
    self.elsewhere = 0
    self.problems = []
    names = collections.defaultdict(set)
    for i, scene in enumerate(scenes):
      for name in (scene.name, scene.path.name, scene.path.stem):
        names[name].add(i)
    self._names = names

  def scene(self, name: str) -> Scene | None:
    """The scene of that name; None: it is none of them."""
    found = self._names.get(name) or self._names.get(Path(name).stem) or ()
    if len(found) > 1:
      raise ValueError(
        f"{name!r} may be {' or '.join(self.scenes[i].name for i in found)}:"
        " use these names"
      )
    return self.scenes[next(iter(found))] if found else None

  def mention(self, scene: Scene) -> list:
    return self.targets.setdefault(scene.name, [])


def _read_csv(path, found: _Found) -> None:
  with path.open(newline="", encoding="utf-8-sig") as file:
    try:
      reader = csv.DictReader(file, skipinitialspace=True)
      columns = reader.fieldnames or ()
      needed = _CSV if len(found.scenes) == 1 else ("scene", *_CSV)
      if missing := [name for name in needed if name not in columns]:
        raise ValueError(
          f"expected a first line scene,{','.join(_CSV)}; missing"
          f" {', '.join(missing)}"
        )
      for row in reader:
        try:
          _csv_row(row, found)
        except ValueError as error:
          found.problems.append(f"{path} line {reader.line_num}: {error}")
    except (ValueError, csv.Error) as error:
      raise ValueError(f"{path}: {error}") from None


def _csv_row(row, found: _Found) -> None:
  scene = found.scenes[0]
  if "scene" in row:
    name = (row["scene"] or "").strip()
    if not name:
      raise ValueError("no scene")
    scene = found.scene(name)
  values = [(row[name] or "").strip() for name in _CSV]
  if scene is None:
    found.elsewhere += 1
    return
  if not any(values):
    found.mention(scene)
    return
  *corners, label = values
  if not label:
    raise ValueError("no label")
  box = tuple(pixels(v, name) for v, name in zip(corners, _CSV))
  check_overlap(box, (scene.height, scene.width))
  found.mention(scene).append(Target(label, box))


def _read_voc(path, found: _Found) -> None:
  scene = found.scene(path.stem)
  if scene is None:
    raise ValueError(
      f"{path}: a VOC file has its scene's name, but there is no scene"
      f" {path.stem!r}."
    )
  size, targets = voc.read_annotation(path)
  if size != (scene.height, scene.width):
    raise ValueError(
      f"{path}: it speaks of {size[0]} x {size[1]} pixels (height x width), but"
      f" {scene.path.name} has {scene.height} x {scene.width}."
    )
  found.mention(scene)
  for i, target in enumerate(targets):
    try:
      check_overlap(target.box, size)
    except ValueError as error:
      found.problems.append(f"{path} object {i}: {error}")
    found.mention(scene).append(target)


def _read_coco(path, found: _Found) -> None:
  images, names, notes, problems = coco.read_annotations(path)
  found.problems += [f"{path}: {problem}" for problem in problems]
  for image in images:
    own = notes[image["id"]]
    try:
      scene = found.scene(Path(image["file_name"]).name)
      if scene is None:
        found.elsewhere += len(own)
        continue
      size = scene.height, scene.width
      told = image.get("height", size[0]), image.get("width", size[1])
      if told != size:
        raise ValueError(
          f"{told[0]} x {told[1]} pixels (height x width), but"
          f" {scene.path.name} has {size[0]} x {size[1]}"
        )
      found.mention(scene).extend(coco.read_target(n, names, size) for n in own)
    except ValueError as error:
      found.problems.append(f"{path} image {image['id']}: {error}")


def _read_geojson(path, told, found: _Found, crs, field) -> None:
  features = told.get("features") if "features" in told else [told]
  if not isinstance(features, list):
    raise ValueError(f'{path}: expected a list in "features".')
  outlines, labels, bad = [], [], []
  for i, feature in enumerate(features):
    try:
      outlines.append(_outline(feature))
      labels.append(_label(feature, field))
    except ValueError as error:
      bad.append(f"{path} feature {i}: {error}")
  found.problems += bad
  if bad or not features:
    return
  crs = crs or _named_crs(path, told) or georeference.LONLAT
  # All points concatenated; those of a feature start at `starts`.
  starts = np.cumsum([0, *map(len, outlines)])[:-1]
  x, y = np.concatenate(outlines).T
  if crs == georeference.LONLAT and (
    np.abs(x).max() > 360 or np.abs(y).max() > 90
  ):
    raise ValueError(
      f"{path}: coordinates such as {[x[0], y[0]]} are no longitude and"
      " latitude; name their coordinate reference system."
    )
  used = np.zeros(len(outlines), bool)
  for scene in found.scenes:
    if scene.place is None:
      raise ValueError(
        f"{path}: places on Earth, but {scene.path.name} has no georeference;"
        " give its labels in pixels."
      )
    system = scene.place.crs if crs == SCENE_CRS else crs
    lons, lats = georeference.reproject(system, georeference.LONLAT, x, y)
    rows, cols = scene.place.to_pixel(lons, lats)
    points = np.split(np.stack([cols, rows], axis=-1), starts[1:])
    for i in _near(scene, lons, lats, starts):
      if not np.isfinite(points[i]).all():
        continue
      outline = tuple(map(tuple, points[i].tolist()))
      box = enclosing(outline)
      try:
        check_overlap(box, (scene.height, scene.width))
      except ValueError:
        continue  # Beside it.
      used[i] = True
      found.mention(scene).append(Target(labels[i], box, polygon=outline))
  found.elsewhere += int((~used).sum())


def _near(scene, lons, lats, starts) -> np.ndarray:
  """int[n], features that may touch the scene.

  Far away, a polynomial through control points may lead anywhere.
  """
  west, south, east, north = bounds_of(scene.place, scene.height, scene.width)
  middle = (west + east) / 2
  ahead = (lons - middle + 180) % 360 - 180
  near = np.minimum.reduceat(lats, starts) <= north
  near &= np.maximum.reduceat(lats, starts) >= south
  near &= np.minimum.reduceat(ahead, starts) <= east - middle
  near &= np.maximum.reduceat(ahead, starts) >= west - middle
  return np.flatnonzero(near)


def _outline(feature) -> np.ndarray:
  """float64[n, 2], the outer ring of a feature, without its last point."""
  geometry = feature.get("geometry") if isinstance(feature, dict) else None
  if not isinstance(geometry, dict):
    raise ValueError("no geometry")
  kind, parts = geometry.get("type"), geometry.get("coordinates")
  if kind == "MultiPolygon" and isinstance(parts, list) and len(parts) == 1:
    kind, parts = "Polygon", parts[0]
  if kind != "Polygon":
    raise ValueError(
      f"expected a Polygon (of one part), got {kind!r:.40}; a point or a line"
      " has no box, buffer it first"
    )
  try:
    ring = np.array([point[:2] for point in parts[0]], np.float64)
  except (TypeError, ValueError, LookupError):
    raise ValueError("its coordinates are not lists of points") from None
  if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4:
    raise ValueError("a ring has four points or more, the first twice")
  if not np.isfinite(ring).all():
    raise ValueError("its coordinates are not finite")
  return ring[:-1]


def _label(feature, field) -> str:
  told = feature.get("properties")
  told = told if isinstance(told, dict) else {}
  names = [field] if field else _NAMES
  name = next((name for name in names if told.get(name) is not None), None)
  label = "" if name is None else str(told[name]).strip()
  if not label:
    raise ValueError(
      f"no class in its properties ({', '.join(names)}); it has"
      f" {sorted(told)[:12]}"
    )
  return label


def _named_crs(path, told) -> str | None:
  """The CRS of files from before RFC 7946, which has no other than WGS 84."""
  if "crs" not in told:
    return None
  try:
    name = str(told["crs"]["properties"]["name"])
    if "CRS84" in name:
      return None
    return georeference.crs_text(georeference.parse_crs(name))
  except (TypeError, KeyError, ValueError) as error:
    raise ValueError(
      f'{path}: "crs" names no coordinate reference system ({error!r:.80}).'
    ) from None
