"""Provenance of a run: config.json, provenance.json and hashes of its weights.

A run stores what it trained and refers to its base, a Hugging Face folder or
another run, by path and sha256. A missing base is searched at its path relative
to the run; a changed base is an error.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusar_jax import config as config_lib
from fusar_jax.data.triplets import write_text
from fusar_jax.field_types import build
from fusar_jax.hf.folders import resolve
from fusar_jax.io.list_files import files_below
from fusar_jax.io.object_store import is_url, listing, url_of
from fusar_jax.io.remote_folder import committed_steps, fetch_model
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.model.config import FusarConfig

CONFIG_FILE = "config.json"
PROVENANCE_FILE = "provenance.json"
# Bytes of each part of a file that identifies its content.
_PART = 4096
_FILES_AT_ONCE = 256
_THREADS = 8
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


@dataclasses.dataclass(frozen=True)
class Source:
  """Weights that a run starts from and does not copy.

  Attributes:
    kind: "random" (nothing; the seed makes them), "folder" (Hugging Face or
      PEFT) or "run".
    path: absolute path or gs://BUCKET/PATH, "" for random.
    sha256: of the files with weights.
    step: of the parent's checkpoint, for a run.
    relative: path seen from the run that refers to it; found again when both
      are moved together.
  """

  kind: str
  path: str = ""
  sha256: str = ""
  step: int | None = None
  relative: str = ""


def describe(path: str, workdir: Path) -> Source:
  """Returns the source that `config.init` or `config.adapter` names.

  Raises:
    FileNotFoundError: neither a folder nor a hub id, or a run without a
      checkpoint.
  """
  if not path:
    return Source("random")
  folder = resolve(path).absolute()
  place, relative = _place(folder, Path(workdir).absolute())
  if not is_run(folder):
    return Source("folder", place, hash_weights(folder), None, relative)
  step = latest_step(folder)
  if step is None:
    raise FileNotFoundError(
      f"{path}: a run without a finished checkpoint; train it first."
    )
  digest = hash_weights(folder, step)
  return Source("run", place, digest, step, relative)


def _place(folder: Path, workdir: Path) -> tuple[str, str]:
  """Returns (path or URL of a folder, the same relative to the run)."""
  urls = url_of(folder), url_of(workdir)
  if urls == (None, None):
    return str(folder), os.path.relpath(folder, workdir)
  if None in urls:
    return urls[0] or str(folder), ""
  return str(urls[0]), os.path.relpath(*map(str, urls))


def find(source: Source, workdir: Path) -> Path:
  """Returns the folder of a source, its weights unread.

  Raises:
    FileNotFoundError: it is neither where it was nor at its relative place.
  """
  found = _look_for(source, workdir)
  if found is None:
    raise FileNotFoundError(
      f"{workdir}: its base {source.path} is gone. Put it back, there or at"
      f" {Path(workdir) / source.relative}: a run keeps only what it trained."
    )
  return found


def _look_for(source: Source, workdir: Path) -> Path | None:
  """Returns the folder of a source; None: it began from nothing, or is gone."""
  if source.kind == "random":
    return None
  places = [Path(workdir) / source.relative] if source.relative else []
  if not is_url(source.path):
    places.insert(0, Path(source.path))
  elif url_of(Path(workdir)):
    places = []  # A copy, and what lies beside it may be outdated.
  # Not Path.is_dir, which raises for names that are too long.
  found = next((p for p in places if os.path.isdir(p)), None)
  if found is None and is_url(source.path):
    with contextlib.suppress(FileNotFoundError):
      found = fetch_model(source.path, source.step)
  return found


def locate(source: Source, workdir: Path) -> Path:
  """Returns the folder of a source after verifying its hash.

  Raises:
    FileNotFoundError: as `find`.
    ValueError: its weights have changed.
  """
  found = find(source, workdir)
  digest = hash_weights(found, source.step)
  if digest != source.sha256:
    raise ValueError(
      f"{workdir}: its base {url_of(found) or found} has changed (sha256"
      f" {digest[:12]}..., was {source.sha256[:12]}...). Restore the original"
      " weights."
    )
  return found


def base_folder(workdir: Path) -> Path | None:
  """Returns the Hugging Face folder that a run goes back to, through its bases.

  None: it began from random weights, or the folder is gone. Contents are not
  checked (`locate`).

  Raises:
    ValueError: the bases form a cycle.
  """
  for source, folder in bases(workdir):
    if source.kind != "run":
      return folder
  return None


def read_source(workdir: Path, name: str = "base") -> Source:
  """Returns the base, or the "adapter", that a run's provenance.json names.

  Raises:
    ValueError: a damaged file, by name.
  """
  path = Path(workdir) / PROVENANCE_FILE
  return _source_of(read_object(path), name, path)


def sources_of(
  record: Mapping[str, Any], workdir: Path
) -> tuple[Source, Source]:
  """Returns base and adapter of a run's parsed provenance.json.

  Raises:
    ValueError: damaged fields; names the file.
  """
  path = workdir / PROVENANCE_FILE
  return _source_of(record, "base", path), _source_of(record, "adapter", path)


def _source_of(record: Mapping[str, Any], name: str, path: Path) -> Source:
  try:
    return build(Source, record.get(name))
  except ValueError as error:
    raise ValueError(f"{path}: {name}: {error}") from None


def read_model_config(workdir: Path) -> FusarConfig:
  """Returns the shapes of a run's model; raises ValueError, naming the file."""
  path = Path(workdir) / CONFIG_FILE
  with reading(path):
    return config_lib.from_dict(read_object(path)["model"])


def read_settings(workdir: Path) -> dict[str, Any]:
  """Returns a run's config; raises ValueError, naming the file."""
  path = Path(workdir) / CONFIG_FILE
  with reading(path):
    return dict(read_object(path)["config"])


def is_run(folder: Path) -> bool:
  """True for a folder that `train` wrote, False for a Hugging Face one."""
  return (Path(folder) / PROVENANCE_FILE).is_file()


def steps(workdir: Path) -> list[int]:
  """Steps of finished checkpoints, ascending; Orbax renames when it is done.

  In a bucket, gs://BUCKET/PATH, it writes a last file.
  """
  if is_url(workdir):
    return sorted(committed_steps(listing(str(workdir))))
  folder = Path(workdir) / "checkpoints"
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def latest_step(workdir: Path) -> int | None:
  """The newest finished checkpoint, None where there is none."""
  return max(steps(workdir), default=None)


def hash_weights(folder: Path, step: int | None = None) -> str:
  """sha256 over names and content of the files that hold weights.

  Args:
    folder: of Hugging Face or PEFT (safetensors, pickled tensors and configs),
      or a run.
    step: of a run: the trained parameters of that checkpoint.

  Raises:
    FileNotFoundError: no weights there.
  """
  folder = Path(folder)
  if step is None:
    kinds = {".safetensors", ".pt", ".json"}
    files = [p for p in folder.iterdir() if p.suffix in kinds]
  else:
    folder = folder / "checkpoints" / str(step) / "trainable"
    files = files_below(folder)
  if not files:
    raise FileNotFoundError(f"{folder}: no weights found.")
  return hash_files(files, folder)


def hash_files(files: Iterable[Path], root: Path) -> str:
  """sha256 over (relative name, content) of files, in the order of names."""
  digest = hashlib.sha256()
  for path in sorted(files):
    digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
    with path.open("rb") as file:
      digest.update(hashlib.file_digest(file, "sha256").digest())
  return digest.hexdigest()


def provenance(
  base: Source, adapter: Source, data: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the content of `provenance.json`."""
  return {
    "base": dataclasses.asdict(base),
    "adapter": dataclasses.asdict(adapter),
    "data": dict(data),
    "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    "python": platform.python_version(),
    "machine": platform.machine(),
  }


def file_hashes(workdir: Path) -> dict[str, str]:
  """Returns {file: SHA-256} of the files that never change during a run."""
  files = [workdir / CONFIG_FILE, *sorted((workdir / "tokenizer").iterdir())]
  return {
    str(f.relative_to(workdir)): hashlib.sha256(f.read_bytes()).hexdigest()
    for f in files
  }


def read(workdir: Path) -> dict[str, Any]:
  """Returns the content of a run's provenance.json.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is not JSON, or a file of the run has changed since the run
      was begun. Runs of older versions have no hashes.
  """
  record = read_object(workdir / PROVENANCE_FILE)
  with reading(workdir / PROVENANCE_FILE):
    files = dict(record.get("files", {}))
  for name, digest in files.items():
    file = workdir / name
    if not file.is_file():
      raise FileNotFoundError(f"{file}: missing; restore it from a copy.")
    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
      raise ValueError(
        f"{file}: changed since the run was begun (its SHA-256 differs from"
        f" that in {PROVENANCE_FILE}). Restore it from a copy."
      )
  return record


def bases(workdir: Path) -> Iterator[tuple[Source, Path]]:
  """Yields what a run comes from, the nearest base first, with its folder.

  Ends at a folder of weights, at random weights, or where a base is gone.

  Raises:
    ValueError: a run is its own ancestor.
  """
  seen = {workdir.resolve()}
  while True:
    source = read_source(workdir)
    found = _look_for(source, workdir)
    if found is None:
      return
    yield source, found
    if source.kind != "run":
      return
    if found.resolve() in seen:
      raise ValueError(
        f"{workdir / PROVENANCE_FILE}: its base {found} comes from this run"
        " itself. Restore the file from a copy."
      )
    seen.add(found.resolve())
    workdir = found


def write_json(path: Path, value: Any) -> None:
  """Writes a JSON file atomically."""
  text = json.dumps(value, indent=2, ensure_ascii=False)
  write_text(Path(path), text + "\n")
