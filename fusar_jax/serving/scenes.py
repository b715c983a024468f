"""Scenes that users of the page have opened: one raster each, and its answers.

A scene is known by an id that nobody can guess, and is dropped when nobody has
used it for some time. Its raster goes through the reader of `prepare` and
`interpret`, and one stretch is fitted to all of it, so the page shows the
pixels that the model sees.
"""

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo.anchors import Anchors
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.rasters import Raster
from fusar_jax.geo.tiles import stretched
from fusar_jax.interpretation.findings import Finding
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.scene_raster import (
  band_choices,
  check_file,
  fit_shown,
  open_shown,
)


@dataclasses.dataclass(frozen=True)
class SceneLimits:
  """Limits of the page's scenes.

  Attributes:
    scenes: open at a time; 429 beyond.
    pixels: of one scene; 413 beyond.
    tiles: that one question may be asked about; 400 beyond.
    answers: that are kept of one scene; the oldest are dropped.
    idle_seconds: a scene that is not used for so long is dropped.
  """

  scenes: int = 32
  pixels: int = 2**30
  tiles: int = 256
  answers: int = 200
  idle_seconds: float = 3600.0


@dataclasses.dataclass(frozen=True)
class Target:
  """A known target of a simulated scene; xyxy, pixels of the scene."""

  label: str
  box: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class SceneAnswer:
  """One question about a scene, and what was read from its answers.

  Attributes:
    id: number in the scene.
    task: "detection", "counting", ..., or None: a question of no known form.
    label: the class asked for, or "".
    question: text, as the model received it for the first tile.
    window: xyxy, pixels of the scene.
    anchors: "aligned", or the control condition.
    tiles: number of tiles that the window was cut into.
    text: the answers, one a line if there are several tiles.
    findings: boxes or cells, pixels of the scene.
    count: of a counting question, summed over tiles, or None.
    errors: answers that cannot be read, with reasons.
  """

  id: int
  task: str | None
  label: str
  question: str
  window: tuple[int, int, int, int]
  anchors: str
  tiles: int
  text: str
  findings: tuple[Finding, ...] = ()
  count: int | None = None
  errors: tuple[str, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values."""
    return dataclasses.asdict(self)


class Scene:
  """One open scene; its raster is read by one thread at a time.

  Attributes:
    id: as clients call it.
    name: of the file, for display.
    size: (height, width), pixels.
    place: georeference, or None.
    stretches: with which its pixels are shown.
    info: what is known of the raster, JSON values.
    choices: bands that can be shown, one or three; () without a choice.
    simulated: whether the package has drawn it.
    truth: targets of a simulated scene.
    anchors: positions in [0, 1] of the scene, of a file or the simulation.
    shuffled: of another simulated scene, for the control of this name.
    year: of the scene's date, or None.
    answers: to questions, the oldest first.
    used: `time.monotonic()` of the last use.
  """

  def __init__(
    self, path: Path, name: str, stretches=None, bands=None, preferred=()
  ):
    """Opens a raster.

    Args:
      path: of the file.
      name: for display.
      stretches: None: fitted to the raster.
      bands: one or three that are shown; None: the preferred ones, or the
        first.
      preferred: bands that are shown if the raster has them.

    Raises:
      ValueError, OSError: it cannot be read.
    """
    self.id = f"scene-{secrets.token_urlsafe(16)}"
    self.name, self.path = name, path
    self._raster = open_shown(path)
    try:
      self.choices = band_choices(self._raster, preferred)
      if bands is None and preferred in self.choices:
        bands = preferred
      self.stretches = stretches or fit_shown(self._raster, bands)
    except BaseException:
      self._raster.close()
      raise
    self.size = self._raster.height, self._raster.width
    self.place: Georeference | None = self._raster.georeference
    self.info = self._raster.to_json()
    date = self._raster.metadata.date
    self.year = int(date[:4]) if date else None
    self.simulated = False
    self.truth: tuple[Target, ...] = ()
    self.anchors: Anchors | None = None
    self.shuffled: Anchors | None = None
    self.answers: list[SceneAnswer] = []
    self.used = time.monotonic()
    self._lock = threading.Lock()
    self._closed = False
    self._next = 1

  def pixels(
    self,
    window: Sequence[float],
    shape: tuple[int, int] | None = None,
  ) -> np.ndarray:
    """Returns uint8[h, w, 3]; invalid pixels are black.

    Args:
      window: xyxy, pixels of the scene.
      shape: to resample to; None: the window's own, of whole pixels.

    Raises:
      RequestError: 404, the scene was dropped.
      ValueError: damaged data.
    """
    x1, y1, x2, y2 = window
    with self.raster() as raster:
      return stretched(
        raster, self.stretches, (y1, x1, y2 - y1, x2 - x1), shape
      )[0]

  @contextlib.contextmanager
  def raster(self):
    """Yields the raster, for this thread alone; raises as `pixels`."""
    with self._lock:
      if self._closed:
        raise missing(self.id)
      yield self._raster

  def reopened(self) -> Raster:
    """Opens the raster once more, for a thread of its own.

    Raises:
      ValueError, OSError: it cannot be read any more.
    """
    return open_shown(self.path)

  def place_of(
    self, window: Sequence[float], shape: tuple[int, int]
  ) -> Georeference | None:
    """Returns the georeference of a window's picture of (h, w) pixels."""
    x1, y1, x2, y2 = window
    return self.place and self.place.tile(
      y1, x1, (y2 - y1) / shape[0], (x2 - x1) / shape[1]
    )

  def keep(self, answer: SceneAnswer, most: int) -> SceneAnswer:
    """Appends an answer, and returns it with its id; drops the oldest."""
    with self._lock:
      answer = dataclasses.replace(answer, id=self._next)
      self._next += 1
      self.answers = [*self.answers, answer][-most:]
    return answer

  def take_over(self, other: "Scene") -> None:
    """Takes answers and anchors of a scene of the same raster."""
    with other._lock:
      self.answers, self._next = other.answers, other._next
      self.anchors, self.shuffled = other.anchors, other.shuffled
    self.truth, self.simulated = other.truth, other.simulated

  @property
  def closed(self) -> bool:
    """Whether it was dropped."""
    return self._closed

  def close(self) -> None:
    """Closes the raster, after the thread that reads it."""
    with self._lock:
      if not self._closed:
        self._closed = True
        self._raster.close()


class Scenes:
  """All open scenes; safe for threads.

  Args:
    limits: see there.
    on_drop: is given each scene that is dropped.
    bands: one or three that are shown of scenes that have them.
  """

  def __init__(
    self,
    limits: SceneLimits,
    on_drop: Callable[[Scene], Any] = lambda s: None,
    bands: tuple[str, ...] = (),
  ):
    self.limits = limits
    self._bands = bands
    self._on_drop = on_drop
    self._scenes: dict[str, Scene] = {}
    self._lock = threading.Lock()

  def drop_idle(self) -> None:
    """Drops the scenes that nobody has used for `idle_seconds`."""
    before = time.monotonic() - self.limits.idle_seconds
    with self._lock:
      idle = [s.id for s in self._scenes.values() if s.used < before]
    for id in idle:
      with contextlib.suppress(RequestError):
        self.drop(id)

  def check(self) -> None:
    """Raises RequestError, 429, if no further scene fits."""
    self.drop_idle()
    with self._lock:
      if len(self._scenes) >= self.limits.scenes:
        raise RequestError(
          429,
          f"{len(self._scenes)} scenes are open, which is the limit; close"
          " one, or try again later.",
        )

  def open(self, path: Path, name: str, stretches=None, bands=None) -> Scene:
    """Opens a scene, see there; it is listed only when `add` is called.

    Raises:
      RequestError: 400, it cannot be read; 413, too many pixels. Messages do
        not name the server's folders.
    """
    try:
      check_file(path, self.limits.pixels)
      return Scene(path, name, stretches, bands, self._bands)
    except (ValueError, OSError) as error:
      message = str(error).replace(str(path), name)
      raise RequestError(
        400, message.replace(f"{path.parent}/", ""), "scene"
      ) from None

  def add(self, scene: Scene) -> None:
    """Lists a scene; raises RequestError as `check`."""
    self.check()
    with self._lock:
      self._scenes[scene.id] = scene

  def replace(self, id: str, scene: Scene) -> None:
    """Lists a scene in place of one, which is dropped; raises as `drop`."""
    with self._lock:
      before = self._scenes.pop(id, None)
      if before is not None:
        self._scenes[scene.id] = scene
    if before is None:
      raise missing(id)
    before.close()
    self._on_drop(before)

  def get(self, id: str) -> Scene:
    """Returns a scene, and counts as a use of it.

    Raises:
      RequestError: 404, no such scene.
    """
    with self._lock:
      scene = self._scenes.get(id)
    if scene is None:
      raise missing(id)
    scene.used = time.monotonic()
    return scene

  def drop(self, id: str) -> None:
    """Closes a scene; raises RequestError, 404, if there is none."""
    with self._lock:
      scene = self._scenes.pop(id, None)
    if scene is None:
      raise missing(id)
    scene.close()
    self._on_drop(scene)

  def close(self) -> None:
    """Closes all scenes."""
    with self._lock:
      ids = list(self._scenes)
    for id in ids:
      with contextlib.suppress(RequestError):
        self.drop(id)


def missing(id: str) -> RequestError:
  """Returns the error for a scene that is not open."""
  return RequestError(
    404, f"no scene {id[:40]!r}: it was closed. Open the image again.", "scene"
  )
