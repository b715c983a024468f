"""Labels of scenes: from label files to boxes in scene pixels.

Labels in pixels are assigned to scenes by the raster's name, with or without
its extension; names are compared, never opened:

  CSV   scene,x1,y1,x2,y2,label; with one scene the first column is optional. A
        line with a scene alone: the scene contains no target.
  COCO  instances.
  VOC   one file per scene, of its name.
  xView3       CSV; a scene's name is that of its folder (see `xview3`).
  OpenSARShip  Ship.xml of one scene (see `opensarship`).

Geographic features (see `features`) are reprojected to each scene and assigned
to all scenes that they touch; the box encloses the outline in pixels. A point
has no box: its side is stated, in metres on the ground.

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
from fusar_jax.datasets.importers.annotation_xml import read_xml
from fusar_jax.datasets.importers.targets import (
  Target,
  check_overlap,
  enclosing,
  pixels,
)
from fusar_jax.datasets.prepare import features as features_lib
from fusar_jax.datasets.prepare import opensarship, xview3
from fusar_jax.datasets.prepare.features import Features
from fusar_jax.datasets.prepare.sources import Scene, bounds_of
from fusar_jax.geo import georeference

SCENE_CRS = "scene"
_CSV = ("x1", "y1", "x2", "y2", "label")
_NO_SIZE = (
  "a point has no box; state the side of one around it, in metres"
  " (--point-size)"
)


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
  point_size: float | None = None,
  unmentioned_are_empty: bool = False,
) -> Labels:
  """Returns the targets of scenes.

  Args:
    paths: label files.
    scenes: scenes to be tiled.
    crs: of geographic features: "scene" (each scene's own), "EPSG:..." or WKT;
      None: the one that the file names, else longitude and latitude.
    field: property that names the class of a feature; None: the first of label,
      class, name and category that it has. Of Ship.xml, a tag.
    point_size: side of the box around a point, metres on the ground; None:
      points are rejected.
    unmentioned_are_empty: scenes without labels contain no targets.

  Raises:
    FileNotFoundError: a missing file.
    ImportError: the format needs the extra `geo`.
    ValueError: an unsupported file, bad labels (all are listed), or a scene
      without labels.
  """
  found = _Found(scenes, point_size)
  for path in map(Path, paths):
    suffix = path.suffix.lower()
    if not path.is_file():
      raise FileNotFoundError(f"label file not found: {path}")
    if suffix == ".csv":
      _read_csv(path, found, crs, field)
    elif suffix == ".xml":
      root = read_xml(path)
      if root.tag == opensarship.ROOT:
        _read_opensarship(path, root, found, field)
      else:
        _read_voc(path, found)
    elif suffix in (".json", ".geojson"):
      value = read_json(path)
      kind = value.get("type") if isinstance(value, dict) else None
      if kind in ("FeatureCollection", "Feature"):
        _locate(path, features_lib.from_geojson(path, value, crs, field), found)
      else:
        _read_coco(path, found)
    elif suffix in features_lib.SUFFIXES:
      _locate(path, features_lib.read_vector_file(path, crs, field), found)
    else:
      raise ValueError(
        f"{path}: labels are .csv, .geojson, .json (COCO or GeoJSON), .xml"
        f" (VOC, OpenSARShip), {', '.join(features_lib.SUFFIXES)}; ogr2ogr"
        " converts other vector formats to .gpkg."
      )
  raise_together(found.problems, "bad labels")
  unmentioned = [s.path.name for s in scenes if s.name not in found.targets]
  if unmentioned and not unmentioned_are_empty:
    raise ValueError(
      f"the labels do not mention {', '.join(unmentioned)}. If these scenes"
      " contain no target, declare unmentioned scenes empty (--empty-scenes);"
      " if they are not labelled, prepare them without labels, in another"
      " folder."
    )
  return Labels(
    {s.name: tuple(found.targets.get(s.name, ())) for s in scenes},
    found.elsewhere,
    {
      "files": {
        path.name: digest
        for path, digest in image_files.digests(
          file for path in paths for file in features_lib.files_of(Path(path))
        ).items()
      },
      "crs": crs,
      "field": field,
      "point_size": point_size,
      **({"low_confidence_left_out": found.low} if found.low else {}),
      "unmentioned_are_empty": unmentioned_are_empty,
    },
  )


def classes_to_ask(
  labels: Labels | None, chosen: Sequence[str], tasks: Sequence[str]
) -> tuple[str, ...]:
  """Returns the classes to ask for: the chosen or all; none without labels.

  Raises:
    ValueError: no target at all, chosen classes that do not occur, or a choice
      between classes of which there is one.
  """
  if labels is None:
    return ()
  present = sorted({t.label for each in labels.targets.values() for t in each})
  classes = tuple(chosen) or tuple(present)
  if not classes:
    raise ValueError("the labels hold no target; name the classes.")
  if absent := sorted(set(classes) - set(present)):
    raise ValueError(f"classes {absent} do not occur; found: {present}.")
  if "classification" in tasks and len(classes) == 1:
    raise ValueError(
      f"classification chooses between classes, but there is {classes[0]!r}"
      " alone; leave that task out."
    )
  return classes


class _Found:
  """Collects targets and problems of labels."""

  def __init__(self, scenes, point_size: float | None = None):
    self.scenes = scenes
    self.point_size = point_size
    self.low = 0  # Labels of low confidence, which are left out.
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

  def of_folder(self, name: str) -> Scene | None:
    """The scene of that name, or the one in a folder of that name."""
    inside = [s for s in self.scenes if s.path.absolute().parent.name == name]
    if len(inside) > 1:
      files = ", ".join(s.path.name for s in inside)
      raise ValueError(
        f"{name!r} holds several scenes ({files}): give one raster of a scene"
      )
    return inside[0] if inside else self.scene(name)

  def around(self, scene: Scene, x: float, y: float) -> tuple:
    """Returns the box around a point in pixels of a scene.

    Raises:
      ValueError: no size is stated, or the scene has no known pixel size.
    """
    if self.point_size is None:
      raise ValueError(_NO_SIZE)
    distance = scene.metadata.ground_sampling_distance
    if not distance:
      raise ValueError(
        f"the ground sampling distance of {scene.path.name} is unknown, so"
        f" {self.point_size} m around a point cannot be drawn"
      )
    across, down = (self.point_size / 2 / distance[i] for i in (1, 0))
    return x - across, y - down, x + across, y + down

  def mention(self, scene: Scene) -> list:
    return self.targets.setdefault(scene.name, [])


def _read_csv(path, found: _Found, crs, field) -> None:
  columns, rows = _csv_table(path)
  places = features_lib.from_csv(path, columns, rows, crs, field)
  if places is not None:
    _locate(path, places, found)
    return
  if xview3.is_xview3(columns):
    _read_xview3(path, rows, found)
    return
  needed = _CSV if len(found.scenes) == 1 else ("scene", *_CSV)
  if missing := [name for name in needed if name not in columns]:
    raise ValueError(
      f"{path}: expected a first line scene,{','.join(_CSV)} (pixels),"
      " west,south,east,north,label or wkt,label (places); missing"
      f" {', '.join(missing)}"
    )
  for line, row in rows:
    try:
      _csv_row(row, found)
    except ValueError as error:
      found.problems.append(f"{path} line {line}: {error}")


def _csv_table(path) -> tuple[Sequence[str], list[tuple[int, dict]]]:
  """Returns the names of the columns, and rows with their line numbers."""
  with path.open(newline="", encoding="utf-8-sig") as file:
    try:
      reader = csv.DictReader(file, skipinitialspace=True)
      columns = reader.fieldnames or ()
      return columns, [(reader.line_num, row) for row in reader]
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
  x0, y0, x1, y1 = (pixels(v, name) for v, name in zip(corners, _CSV))
  box = x0, y0, x1, y1
  check_overlap(box, (scene.height, scene.width))
  found.mention(scene).append(Target(label, box))


def _read_xview3(path, rows, found: _Found) -> None:
  for line, row in rows:
    try:
      detected = xview3.read_row(row)
      scene = found.of_folder(detected.scene)
      if scene is None:
        found.elsewhere += 1
        continue
      targets = found.mention(scene)
      if detected.confidence == "LOW":
        found.low += 1
        continue
      box = detected.box or found.around(scene, *detected.point)
      check_overlap(box, (scene.height, scene.width))
      targets.append(Target(detected.label, box))
    except ValueError as error:
      found.problems.append(f"{path} line {line}: {error}")


def _read_opensarship(path, root, found: _Found, field) -> None:
  if len(found.scenes) != 1:
    raise ValueError(
      f"{path}: Ship.xml names no scene; prepare its product alone, got"
      f" {len(found.scenes)} scenes."
    )
  (scene,) = found.scenes
  targets, problems = opensarship.read_ships(root, field)
  for i, target in enumerate(targets):
    try:
      check_overlap(target.box, (scene.height, scene.width))
    except ValueError as error:
      problems.append(f"{target.label} {i}: {error}")
  found.problems += [f"{path} {problem}" for problem in problems]
  found.mention(scene).extend(targets)


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
      f"{path}: it is for {size[0]} x {size[1]} pixels (height x width), but"
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
      stated = image.get("height", size[0]), image.get("width", size[1])
      if stated != size:
        raise ValueError(
          f"{stated[0]} x {stated[1]} pixels (height x width), but"
          f" {scene.path.name} has {size[0]} x {size[1]}"
        )
      found.mention(scene).extend(coco.read_target(n, names, size) for n in own)
    except ValueError as error:
      found.problems.append(f"{path} image {image['id']}: {error}")


def _locate(path, features: Features, found: _Found) -> None:
  """Assigns features to the scenes that they touch."""
  found.problems += features.problems
  if features.problems or not features.outlines:
    return
  outlines, labels, crs = features.outlines, features.labels, features.crs
  if found.point_size is None and any(len(o) == 1 for o in outlines):
    raise ValueError(f"{path}: {_NO_SIZE}.")
  # All points concatenated; those of a feature start at `starts`.
  starts = np.cumsum([0, *map(len, outlines)])[:-1]
  x, y = np.concatenate(outlines).T
  if crs == georeference.LONLAT and (
    np.abs(x).max() > 360 or np.abs(y).max() > 90
  ):
    raise ValueError(
      f"{path}: coordinates such as {[x[0], y[0]]} are not longitude and"
      " latitude; name their coordinate reference system."
    )
  used = np.zeros(len(outlines), bool)
  for scene in found.scenes:
    if scene.place is None:
      raise ValueError(
        f"{path}: labels are geographic, but {scene.path.name} has no"
        " georeference; give its labels in pixels."
      )
    system = scene.place.crs if crs == SCENE_CRS else crs
    lons, lats = georeference.reproject(system, georeference.LONLAT, x, y)
    rows, cols = scene.place.to_pixel(lons, lats)
    points = np.split(np.stack([cols, rows], axis=-1), starts[1:])
    for i in _near(scene, lons, lats, starts):
      if not np.isfinite(points[i]).all():
        continue
      outline = tuple(map(tuple, points[i].tolist()))
      if len(outline) == 1:
        (x0, y0), outline = outline[0], None
        try:
          box = found.around(scene, x0, y0)
        except ValueError as error:
          raise ValueError(f"{path}: {error}") from None
      else:
        box = enclosing(outline)
      try:
        check_overlap(box, (scene.height, scene.width))
      except ValueError:
        continue  # Outside of the scene.
      used[i] = True
      found.mention(scene).append(Target(labels[int(i)], box, polygon=outline))
  found.elsewhere += int((~used).sum())


def _near(scene, lons, lats, starts) -> np.ndarray:
  """int[n], features that may touch the scene.

  Far away, a polynomial through control points may lead anywhere.
  """
  west, south, east, north = bounds_of(scene.place, scene.height, scene.width)
  middle = (west + east) / 2
  offset = (lons - middle + 180) % 360 - 180
  near = np.minimum.reduceat(lats, starts) <= north
  near &= np.maximum.reduceat(lats, starts) >= south
  near &= np.minimum.reduceat(offset, starts) <= east - middle
  near &= np.maximum.reduceat(offset, starts) >= west - middle
  return np.flatnonzero(near)
