"""Writes a data set of simulated scenes with questions and true answers.

  images/, anchors/     one file per scene
  captions.jsonl        stage 1: one caption per scene
  tasks.jsonl           stage 2: counting, grounding, classification, detection
  pretraining_tasks.jsonl  optional: stage 0, pretraining tasks of the tiny base
  pretraining_see.jsonl, pretraining_one.jsonl, pretraining_two.jsonl
                        of these rows, those of the phases before the last
  manifest.jsonl        captions and tasks, scene by scene
  dataset.json          plan, sources and SHA-256 hashes
  rasters/              optional: inputs of `prepare`. With --stretch
                        dataset.json and the same --limit and size, `prepare`
                        reproduces the same images, anchors and boxes, and with
                        land cover and map features the same captions

The same seed gives the same bytes for any number of workers. The folder is
renamed into place once it is complete.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fusar_jax.data.triplets import write_manifest, write_text
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.io.child_process import end_with_parent, without_interrupts
from fusar_jax.simulation import options
from fusar_jax.simulation import pretraining_tasks as tasks_lib
from fusar_jax.simulation import scenes as scenes_lib
from fusar_jax.simulation.covers import REGIONS, shipped_table
from fusar_jax.simulation.ground_files import write_ground
from fusar_jax.simulation.questions import scene_rows
from fusar_jax.simulation.scene_files import write_pair, write_rasters
from fusar_jax.tasks.predictions import TASKS

# Incremented whenever the output bytes of a given seed change.
VERSION = 5
_QUESTIONS, _PRETRAINING = 1, 2
# Read by both OpenBLAS and MKL.
_THREADS = "OMP_NUM_THREADS"


@dataclasses.dataclass(frozen=True)
class Plan:
  """What to simulate.

  Attributes:
    scenes: number of scenes.
    seed: scene k depends on (seed, k) only.
    size: pixels per side.
    gsd: ground sampling distance, metres.
    anchors: maximum number of grid points per side.
    tasks: tasks that get questions, a subset of TASKS.
    rasters: also write the rasters and labels of each scene.
    pretraining_tasks: also write the rows of stage 0.

  Raises:
    ValueError: no scenes, an unknown task, or a number out of range.
  """

  scenes: int
  seed: int = 0
  size: int = options.SIZE
  gsd: float = options.GSD
  anchors: int = options.ANCHORS
  tasks: tuple[str, ...] = TASKS
  rasters: bool = False
  pretraining_tasks: bool = False

  def __post_init__(self):
    unknown = [task for task in self.tasks if task not in TASKS]
    if unknown or not self.tasks:
      raise ValueError(
        f"tasks: expected some of {', '.join(TASKS)}, got"
        f" {', '.join(unknown) or 'none'}."
      )
    scenes_lib.check(
      self.seed, self.scenes - 1, self.size, self.gsd, self.anchors
    )


@dataclasses.dataclass(frozen=True)
class _Written:
  """Manifest rows and metadata of a scene whose files are written."""

  rows: list[dict]
  pretraining: list[dict]
  record: dict[str, Any]
  digest: bytes


def simulate(
  out,
  plan: Plan,
  *,
  workers: int = 1,
  on_scene: Callable[[], None] = lambda: None,
) -> dict:
  """Writes a data set and returns the content of its dataset.json.

  Args:
    out: output folder; must be new or empty.
    plan: what to simulate.
    workers: number of processes.
    on_scene: called after each scene.

  Raises:
    FileExistsError: `out` is a file or a folder that is not empty.
    ValueError: no scene yields a row for any of the tasks.
  """
  with new_folder(out) as folder:
    written = []
    for scene in _scenes(folder, plan, workers):
      written.append(scene)
      on_scene()
    return _write_tables(folder, plan, written)


def _scenes(part, plan, workers) -> Iterator[_Written]:
  jobs = [(part, plan, k) for k in range(plan.scenes)]
  if workers <= 1:
    yield from map(_write_scene, jobs)
    return
  # Spawn, not fork: the caller may run threads (JAX does).
  context = multiprocessing.get_context("spawn")
  with (
    _one_thread_each(),
    concurrent.futures.ProcessPoolExecutor(
      workers, context, initializer=end_with_parent
    ) as pool,
  ):
    with without_interrupts():
      # No chunks: after Ctrl-C the pool waits for what it has begun.
      scenes = pool.map(_write_scene, jobs)
    yield from scenes


@contextlib.contextmanager
def _one_thread_each():
  """Limits BLAS to one thread in new processes unless the user set a limit.

  By default each process starts one thread per core, and idle threads spin.
  That took half of the run time.
  """
  before = os.environ.get(_THREADS)
  os.environ.setdefault(_THREADS, "1")
  try:
    yield
  finally:
    if before is None:
      del os.environ[_THREADS]


def _write_scene(job) -> _Written:
  """Writes the files of one scene."""
  part, plan, k = job
  scene = scenes_lib.draw_scene(
    plan.seed, k, plan.size, plan.gsd, anchors=plan.anchors
  )
  name = f"scene-{k:06d}"
  image, anchors = write_pair(scene, name, part)
  rng = np.random.default_rng([plan.seed, k, _QUESTIONS])
  rows = scene_rows(scene, name, image, anchors, rng, plan.tasks)
  pretraining = []
  if plan.pretraining_tasks:
    rng = np.random.default_rng([plan.seed, k, _PRETRAINING])
    pretraining = tasks_lib.rows(scene, name, image, rng)
  files = [image, anchors]
  if plan.rasters:
    files += [
      f"rasters/{f}" for f in write_rasters(scene, name, part / "rasters")
    ]
    write_ground(scene, name, part / "rasters")
  digest = hashlib.sha256()
  for file in files:
    digest.update((part / file).read_bytes())
  record = {
    "name": name,
    "region": REGIONS[scene.region],
    "place": scene.terrain.place,
    "stretches": [scene.stretch.to_json()],
  }
  return _Written(rows, pretraining, record, digest.digest())


def _write_tables(part, plan, written: list[_Written]) -> dict:
  rows = list(itertools.chain.from_iterable(w.rows for w in written))
  if not rows:
    raise ValueError(
      f"none of {', '.join(plan.tasks)} can be asked of any of {plan.scenes}"
      " scenes: they hold no target; simulate more, or ask for captions."
    )
  pretraining = list(
    itertools.chain.from_iterable(w.pretraining for w in written)
  )
  tables = {
    "manifest.jsonl": rows,
    "captions.jsonl": [r for r in rows if r["task"] == "captioning"],
    "tasks.jsonl": [r for r in rows if r["task"] != "captioning"],
    "pretraining_tasks.jsonl": pretraining,
    **{
      f"pretraining_{phase}.jsonl": table
      for phase, table in tasks_lib.early_phases(pretraining).items()
    },
  }
  hashes = {}
  for name, table in tables.items():
    if table:
      write_manifest(part / name, table)
      data = (part / name).read_bytes()
      hashes[name] = hashlib.sha256(data).hexdigest()
  content = hashlib.sha256(b"".join(w.digest for w in written))
  card = {
    "source": "simulated by fusar_jax.simulate",
    "license": "Apache-2.0",
    "ground_statistics": shipped_table()["sources"],
    "simulation_version": VERSION,
    "plan": dataclasses.asdict(plan),
    "rows": {task: sum(r["task"] == task for r in rows) for task in plan.tasks},
    "images": plan.scenes,
    "aef_year": scenes_lib.YEAR,
    "sha256": hashes,
    "files_sha256": content.hexdigest(),
    "scenes": [w.record for w in written],
  }
  write_text(part / "dataset.json", json.dumps(card, indent=1) + "\n")
  # Same types as the parsed file: lists, not tuples.
  return json.loads(json.dumps(card))
