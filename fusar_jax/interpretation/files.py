"""Writes what `interpret` found: vectors, pictures, a table and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusar_jax.data.triplets import write_text
from fusar_jax.datasets.prepare.sources import Look
from fusar_jax.interpretation import picture as picture_lib
from fusar_jax.interpretation import vector_files
from fusar_jax.interpretation.scene import SceneAnswers
from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.report.data_uri import data_uri
from fusar_jax.report.render import render

_COLUMNS = ("scene", "x1", "y1", "x2", "y2", "label", "tiles")
# Longest side of a picture on the page, and findings that it lists.
_SIDE, _LISTED = 1600, 2000


def write_files(
  out: Path, scenes: Sequence[SceneAnswers], look: Look, title: str
) -> list[Path]:
  """Writes the files of all scenes; returns their paths.

  Without the extra `geo` there is no GeoPackage.

  Args:
    out: folder.
    scenes: with their answers.
    look: with which the scenes were cut; reopens the rasters.
    title: of the page.
  """
  written, shown = [], []
  for scene in scenes:
    rings, properties = _features(scene)
    path = out / f"{scene.name}.geojson"
    vector_files.write_geojson(path, rings, properties, scene.place)
    written.append(path)
    try:
      path = out / f"{scene.name}.gpkg"
      vector_files.write_geopackage(path, rings, properties, scene.place)
      written.append(path)
    except ImportError as error:
      print(f"no GeoPackage: {error}")
    with look.open(scene.path, scene.name) as raster:
      whole = picture_lib.scene_picture(scene, raster)
    drawn = picture_lib.with_boxes(scene, whole)
    path = out / f"{scene.name}.png"
    write_atomically(path, lambda file, image=drawn: image.save(file, "PNG"))
    written.append(path)
    shown.append(_shown(scene, whole))
  path = out / "findings.csv"
  vector_files.write_csv(path, _COLUMNS, _table(scenes))
  written.append(path)
  page = render("scene.html.j2", title=title, scenes=shown, listed=_LISTED)
  write_text(out / "index.html", page)
  return [*written, out / "index.html"]


def _features(scene: SceneAnswers) -> tuple[list[np.ndarray], list[dict]]:
  """Boxes of findings; for other tasks the tiles with their answers."""
  detects = [tile.task == "detection" for tile in scene.tiles]
  if all(detects):
    return (
      [vector_files.rectangle(finding.box) for finding in scene.findings],
      [
        {
          "label": finding.label,
          "tile": finding.tiles[0],
          "tiles": len(finding.tiles),
          "answer": finding.answer,
        }
        for finding in scene.findings
      ],
    )
  return (
    [vector_files.rectangle(tile.window.box) for tile in scene.tiles],
    [
      {
        "tile": tile.window.name,
        "label": tile.label,
        "question": tile.question,
        "answer": tile.answer,
        "count": -1 if tile.count is None else tile.count,
      }
      for tile in scene.tiles
    ],
  )


def _table(scenes: Sequence[SceneAnswers]) -> list[dict[str, Any]]:
  rows = []
  for scene in scenes:
    for finding in scene.findings:
      x1, y1, x2, y2 = (round(v, 2) for v in finding.box)
      rows.append(
        {
          "scene": scene.name,
          "x1": x1,
          "y1": y1,
          "x2": x2,
          "y2": y2,
          "label": finding.label,
          "tiles": " ".join(finding.tiles),
        }
      )
  return rows


def _shown(scene: SceneAnswers, whole: np.ndarray) -> dict[str, Any]:
  """What the template needs of one scene."""
  picture = Image.fromarray(whole)
  picture.thumbnail((_SIDE, _SIDE))
  colours = picture_lib.colours_of(scene)
  return {
    "scene": scene,
    "uri": data_uri(np.asarray(picture), "JPEG", quality=88),
    "colours": {k: f"rgb{v}" for k, v in colours.items()},
    "counts": {
      label: sum(f.label == label for f in scene.findings) for label in colours
    },
    "centres": [_centre(finding.box, scene) for finding in scene.findings],
    "errors": sum(tile.error is not None for tile in scene.tiles),
    "truncated": sum(tile.truncated for tile in scene.tiles),
    "stroke": max(scene.size) / 500,
  }


def _centre(box, scene: SceneAnswers) -> str:
  """Longitude and latitude of a box's centre, or its column and row."""
  x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
  if scene.place is None:
    return f"{x:.0f}, {y:.0f}"
  lons, lats = scene.place.to_lonlat(np.array([y]), np.array([x]))
  return f"{lons[0]:.5f}, {lats[0]:.5f}"
