"""A folder of simulated scenes, with questions whose answers are known.

  images/000000.png     8-bit amplitude
  anchors/000000.npz    features [S, 64] and positions [S, 2]
  captions.jsonl        stage 1: one caption per scene
  tasks.jsonl           stage 2: counting, grounding, classification, detection
  manifest.jsonl        all of these rows, scene by scene
  dataset.json          how it was made, and hashes of what was made

The same seed gives the same bytes, whatever the number of workers. The folder
appears whole or not at all.
"""

import concurrent.futures
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
from PIL import Image

from fusar_jax.data.triplets import write_manifest
from fusar_jax.geo.anchors import write_anchors
from fusar_jax.simulation import ships
from fusar_jax.simulation.scenes import Scene, draw_scene
from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
)
from fusar_jax.tasks.predictions import TASKS

# Raised whenever the same seed no longer gives the same bytes.
VERSION = 1
TARGET = "ship"


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to simulate.

  Attributes:
    scenes: how many.
    seed: scene k depends on (seed, k).
    size: pixels per side.
    tasks: which questions are asked of each scene, of TASKS.

  Raises:
    ValueError: no scenes, an unknown task.
  """

  scenes: int
  seed: int = 0
  size: int = 224
  tasks: tuple[str, ...] = TASKS

  def __post_init__(self):
    unknown = [task for task in self.tasks if task not in TASKS]
    if unknown or not self.tasks:
      raise ValueError(
        f"tasks: expected some of {', '.join(TASKS)}, got"
        f" {', '.join(unknown) or 'none'}."
      )
    if self.scenes < 1 or self.seed < 0 or self.size < 64:
      raise ValueError(
        "expected scenes >= 1, seed >= 0 and size >= 64, got"
        f" {self.scenes}, {self.seed} and {self.size}."
      )


def simulate(
  out,
  plan: Plan,
  *,
  workers: int = 1,
  on_scene: Callable[[], None] = lambda: None,
) -> dict:
  """Writes a data set and returns what its dataset.json says.

  Args:
    out: folder to make; may exist, but empty.
    plan: what to simulate.
    workers: processes to share the work.
    on_scene: called after each scene.

  Raises:
    FileExistsError: `out` is a file, or a folder with something in it.
  """
  out = pathlib.Path(out)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise FileExistsError(
      f"{out} is not an empty folder; name a new one, or empty it first."
    )
  part = out.parent / f".{out.name}.{os.getpid()}.part"
  for folder in ("images", "anchors"):
    (part / folder).mkdir(parents=True)
  try:
    rows, digests = [], hashlib.sha256()
    for scene_rows, digest in _scenes(part, plan, workers):
      rows += scene_rows
      digests.update(digest)
      on_scene()
    card = _write_tables(part, plan, rows, digests.hexdigest())
    if out.exists():
      out.rmdir()
    part.rename(out)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return card


def _scenes(part, plan, workers):
  jobs = [(part, plan, k) for k in range(plan.scenes)]
  if workers <= 1:
    yield from map(_write_scene, jobs)
    return
  # Spawned, not forked: the caller may hold threads (JAX does).
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
    yield from pool.map(_write_scene, jobs, chunksize=16)


def _write_scene(job) -> tuple[list[dict], bytes]:
  """Writes the files of one scene; returns its rows and the files' hash."""
  part, plan, k = job
  scene = draw_scene(plan.seed, k, plan.size)
  image, anchors = f"images/{k:06d}.png", f"anchors/{k:06d}.npz"
  png = io.BytesIO()
  Image.fromarray(scene.image).save(png, "PNG")
  (part / image).write_bytes(png.getvalue())
  write_anchors(part / anchors, scene.anchors)
  digest = hashlib.sha256(png.getvalue())
  digest.update((part / anchors).read_bytes())
  return scene_rows(scene, k, image, anchors, plan), digest.digest()


def scene_rows(
  scene: Scene, k: int, image: str, anchors: str, plan: Plan
) -> list[dict]:
  """Returns one manifest row per task that can be asked of the scene.

  A scene without ships has no classification row; its other rows say so.
  """
  boxes, size = scene.boxes, scene.image.shape
  labels = [TARGET] * len(boxes)
  # Which ship is asked about is a matter of (seed, k) too.
  chosen = int(np.random.default_rng([plan.seed, k, 1]).integers(1 << 30))
  rows = []
  for task in TASKS:
    about = (boxes, labels)
    if task not in plan.tasks or (task == "classification" and not boxes):
      continue
    if task == "counting":
      words = counting.question(TARGET), counting.answer(len(boxes))
    elif task == "grounding":
      words = grounding.question(TARGET), grounding.answer(boxes, size)
    elif task == "detection":
      words = detection.question(TARGET), detection.answer(boxes, labels)
    elif task == "captioning":
      words = captioning.question(), captioning.answer(scene.caption)
    else:
      one = chosen % len(boxes)
      name = scene.ships[one].name
      about = ([boxes[one]], [name])
      words = (
        classification.question(boxes[one], ships.CLASSES),
        classification.answer(name),
      )
    rows.append(
      {
        "id": f"scene-{k:06d}-{task}",
        "image": image,
        "aef": anchors,
        "coordinate_size": list(size),
        "question": words[0],
        "answer": words[1],
        "task": task,
        "boxes": about[0],
        "labels": about[1],
      }
    )
  return rows


def _write_tables(part, plan, rows, content) -> dict:
  tables = {
    "manifest.jsonl": rows,
    "captions.jsonl": [r for r in rows if r["task"] == "captioning"],
    "tasks.jsonl": [r for r in rows if r["task"] != "captioning"],
  }
  hashes = {}
  for name, table in tables.items():
    if table:
      write_manifest(part / name, table)
      data = (part / name).read_bytes()
      hashes[name] = hashlib.sha256(data).hexdigest()
  card = {
    "source": "simulated by fusar_jax.simulate; no third-party data",
    "licence": "Apache-2.0",
    "simulation_version": VERSION,
    **dataclasses.asdict(plan),
    "rows": {task: sum(r["task"] == task for r in rows) for task in plan.tasks},
    "stretch": "none: amplitudes are drawn in 8 bits",
    "aef_year": None,
    "sha256": hashes,
    "images_and_anchors_sha256": content,
  }
  text = json.dumps(card, indent=2) + "\n"
  (part / "dataset.json").write_text(text, encoding="utf-8")
  return card
