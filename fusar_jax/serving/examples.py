"""Example scenes for the page, drawn by the simulation when first opened.

They are of seeds that no shipped model was trained on. Their targets are known,
so a user sees what an answer should have been.
"""

import dataclasses
import threading
from pathlib import Path

from fusar_jax.serving.scenes import Scene, Scenes, Target
from fusar_jax.simulation.scene_files import write_rasters
from fusar_jax.simulation.scenes import Scene as Drawn
from fusar_jax.simulation.scenes import draw_scene

_SEED = 7


@dataclasses.dataclass(frozen=True)
class Example:
  """One example.

  Attributes:
    number: of the scene, among those of the seed.
    title: for users.
    asks: class that is worth asking for.
  """

  number: int
  title: str
  asks: str


EXAMPLES = (
  Example(21, "Harbour", "ship"),
  Example(31, "Airport", "plane"),
  Example(30, "Open sea", "ship"),
  Example(46, "Coast", "ship"),
)


class ExampleScenes:
  """Draws each example once; safe for threads.

  Args:
    folder: for their files.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._lock = threading.Lock()
    self._drawn: dict[int, tuple[Drawn, Path]] = {}

  def open(self, index: int, scenes: Scenes) -> Scene:
    """Returns an example as a scene of its own, which is not listed yet.

    Args:
      index: in EXAMPLES.
      scenes: opens it.
    """
    drawn, path = self._get(index)
    other, _ = self._get((index + 1) % len(EXAMPLES))
    scene = scenes.open(
      path, f"{EXAMPLES[index].title} (simulated)", (drawn.stretch,)
    )
    scene.simulated = True
    scene.anchors, scene.shuffled = drawn.anchors, other.anchors
    scene.truth = tuple(
      Target(target.kind, (float(x1), float(y1), float(x2), float(y2)))
      for target, (x1, y1, x2, y2) in zip(drawn.targets, drawn.boxes)
    )
    return scene

  def _get(self, index: int) -> tuple[Drawn, Path]:
    with self._lock:
      if index not in self._drawn:
        self._drawn[index] = self._draw(EXAMPLES[index])
      return self._drawn[index]

  def _draw(self, example: Example) -> tuple[Drawn, Path]:
    drawn = draw_scene(_SEED, example.number)
    name = f"example-{example.number}"
    sar, *_ = write_rasters(drawn, name, self._folder)
    return drawn, self._folder / sar
