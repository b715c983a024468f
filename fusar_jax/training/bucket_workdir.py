"""A run whose --workdir is in a bucket: gs://BUCKET/PATH.

Checkpoints go there directly, each process writing its part. All other files
are small: they are written to a local folder, as in every run, and uploaded
every half minute and before a checkpoint is committed. A committed checkpoint
is thus never newer than the log.

Object stores have no locks that end with a process. Each run therefore owns the
object trainer.json, by its generation: a process that starts takes it over, and
one that finds another generation stops before it commits anything more. The
latest process wins, so a preempted run restarts without waiting.
"""

import contextlib
import json
import logging
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from etils import epath

from fusar_jax.io import object_store
from fusar_jax.io.atomic_write import PARTIAL_SUFFIX
from fusar_jax.io.folder_lock import locked_folder
from fusar_jax.training import provenance

OWNER = "trainer.json"
_CHECKPOINTS = "checkpoints"
_SECONDS_APART = 30
# Read by a resumed run.
_PULLED = (
  provenance.CONFIG_FILE,
  provenance.PROVENANCE_FILE,
  "metrics.jsonl",
  "metric_services.json",
  "tokenizer/",
)
# Of this process, by their local folder.
_open: dict[Path, "_Mirror"] = {}


@contextlib.contextmanager
def opened(workdir: str | Path) -> Iterator[Path]:
  """Yields the local folder of a run, which no other process trains in.

  Of a folder in a bucket it is a temporary copy of the small files.

  Raises:
    BlockingIOError: another process trains in a local folder.
    FileExistsError: a folder in a bucket that is not empty and holds no run.
    OSError: the bucket cannot be read or written.
  """
  first = jax.process_index() == 0
  if not object_store.is_url(workdir):
    with contextlib.ExitStack() as stack:
      if first:
        stack.enter_context(locked_folder(Path(workdir), "trains in"))
      yield Path(workdir)
    return
  url = str(workdir).rstrip("/")
  with tempfile.TemporaryDirectory(prefix="fusar_jax_") as temporary:
    folder = Path(temporary).joinpath(*object_store.split(url))
    mirror = _Mirror(url, folder, first)
    mirror.pull()
    _open[folder] = mirror
    try:
      with object_store.mirrored(folder, url), mirror.running():
        yield folder
    except (OSError, ValueError) as error:
      _name_url(error, folder, url)
      raise
    finally:
      del _open[folder]


def push(workdir: Path) -> None:
  """Uploads the small files of a run in a bucket; else does nothing.

  Raises:
    OSError: they could not be written, or another process trains there now.
  """
  if mirror := _open.get(workdir):
    mirror.push()


def pull(workdir: Path) -> None:
  """Downloads what process 0 has pushed, on the other processes."""
  if (mirror := _open.get(workdir)) and not mirror.first:
    mirror.pull()


def checkpoints_folder(workdir: Path) -> Any:
  """Returns the folder of the checkpoints: a Path, or an epath to a bucket."""
  if (mirror := _open.get(workdir)) is None:
    return workdir.absolute() / _CHECKPOINTS
  # Orbax asks for it because its listings would show empty folders of such a
  # bucket. Those of ObjectFiles do not; and the question takes a permission on
  # the bucket, besides those on its objects.
  from orbax.checkpoint._src.path import gcs_utils

  from fusar_jax.io import object_files

  gcs_utils.is_hierarchical_namespace_enabled = lambda path: False
  object_files.register()
  return epath.Path(mirror.url) / _CHECKPOINTS


class _Mirror:
  """The small files of a run in a bucket, and its ownership.

  Args:
    url: of the run.
    folder: local copy, to be created.
    first: this is process 0, which owns the run.
  """

  def __init__(self, url: str, folder: Path, first: bool):
    self.url, self.first = url, first
    self._folder = folder
    self._known: dict[str, tuple[int, int]] = {}
    self._generation: int | None = None
    self._lock = threading.Lock()

  def pull(self) -> None:
    found = object_store.listing(self.url)
    if set(found) - {OWNER} and provenance.CONFIG_FILE not in found:
      raise FileExistsError(
        f"--workdir {self.url} is not empty and holds no run. Choose another"
        " folder, or empty it."
      )
    wanted = {n: found[n] for n in found if n.startswith(_PULLED)}
    object_store.download(self.url, wanted, self._folder)
    self._known |= {n: (f.size, f.changed) for n, f in wanted.items()}

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Owns the run, and pushes its files from time to time and at the end."""
    if self.first:
      self._own(None)
    ended = threading.Event()
    thread = threading.Thread(target=self._push_often, args=(ended,))
    thread.start()
    try:
      yield
    except BaseException:
      ended.set()
      thread.join()
      # The first error is the one to report.
      with contextlib.suppress(OSError):
        self._end()
      raise
    ended.set()
    thread.join()
    self._end()

  def push(self) -> None:
    with self._lock:
      if self.first:
        self._own(self._generation)
      now = self._files()
      changed = [n for n in now if now[n] != self._known.get(n)]
      # The last one marks a run that can be resumed.
      for name in sorted(changed, key=provenance.PROVENANCE_FILE.__eq__):
        with contextlib.suppress(FileNotFoundError):
          content = (self._folder / name).read_bytes()
          object_store.upload(f"{self.url}/{name}", content)
          self._known[name] = now[name]
      for name in set(self._known) - set(now):
        object_store.delete(f"{self.url}/{name}")
        del self._known[name]

  def _own(self, generation: int | None) -> None:
    owner = {"host": platform.node(), "process": os.getpid()}
    url = f"{self.url}/{OWNER}"
    try:
      self._generation = object_store.upload(
        url, json.dumps(owner).encode(), generation
      )
    except FileExistsError:
      with contextlib.suppress(OSError, ValueError):
        owner = json.loads(object_store.read(url))
      raise BlockingIOError(
        f"{self.url}: process {owner.get('process')} on {owner.get('host')}"
        " trains there now; this one stops. It is the later one; what it saves"
        " is intact."
      ) from None

  def _end(self) -> None:
    self.push()
    if self.first:
      object_store.delete(f"{self.url}/{OWNER}", self._generation)

  def _push_often(self, ended: threading.Event) -> None:
    while not ended.wait(_SECONDS_APART):
      try:
        self.push()
      except OSError as error:
        # The next checkpoint raises it, if it lasts.
        logging.getLogger(__name__).warning("%s", error)

  def _files(self) -> dict[str, tuple[int, int]]:
    found = {}
    for parent, _, names in os.walk(self._folder):
      for name in names:
        path = Path(parent, name)
        if path.suffix == PARTIAL_SUFFIX:
          continue
        with contextlib.suppress(FileNotFoundError):
          status = path.stat()
          relative = path.relative_to(self._folder).as_posix()
          found[relative] = status.st_size, status.st_mtime_ns
    return found


def _name_url(error: Exception, folder: Path, url: str) -> None:
  """Names the URL in an error that names its local copy."""

  def renamed(value: Any) -> Any:
    if isinstance(value, str):
      return value.replace(str(folder), url)
    return value

  error.args = tuple(map(renamed, error.args))
  if isinstance(error, OSError) and error.filename:
    error.filename = renamed(str(error.filename))
