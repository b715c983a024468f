"""Objects in Google Cloud Storage, gs://BUCKET/KEY, and local copies of them.

Inputs are read-only, so they are downloaded once into a cache and then read as
any local file. A copy is current if its size and modification time equal those
of the listing; the client verifies the checksum of each download. Images,
rasters and safetensors are opened by libraries that know files only, and the
content of every input is hashed at start-up, so streaming would save nothing.

The client is google-cloud-storage, of the extra `gcs`. Credentials are the
application default ones; STORAGE_EMULATOR_HOST names an emulator instead.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fusar_jax.io.user_cache import user_cache

SCHEME = "gs://"
_THREADS = 16
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
# Local folders that hold copies: {folder: URL}. `mirrored` adds to them.
_copies: dict[Path, str] = {}


@dataclasses.dataclass(frozen=True)
class Listed:
  """One object of a listing: size in bytes, time of change in nanoseconds."""

  size: int
  changed: int


def is_url(path: str | os.PathLike) -> bool:
  return str(path).startswith(SCHEME)


def split(url: str) -> tuple[str, str]:
  """Returns (bucket, key) of gs://BUCKET/KEY; raises ValueError."""
  bucket, _, key = url.removeprefix(SCHEME).partition("/")
  if not bucket or ".." in key.split("/"):
    raise ValueError(f"{url}: expected gs://BUCKET/PATH.")
  return bucket, key.strip("/")


def local_path(url: str) -> Path:
  """Returns where the copy of an object or folder is, or would be."""
  return user_cache("gs").joinpath(*split(url))


def url_of(path: Path) -> str | None:
  """Returns the URL that a local path is a copy of; None for other files."""
  for root, url in (*_copies.items(), (user_cache("gs"), SCHEME[:-1])):
    if path.is_relative_to(root):
      return f"{url}/{path.relative_to(root).as_posix()}".removesuffix("/.")
  return None


@contextlib.contextmanager
def mirrored(folder: Path, url: str) -> Iterator[None]:
  """Makes `url_of` know a folder that is a copy of `url`."""
  _copies[folder] = url
  try:
    yield
  finally:
    del _copies[folder]


def listing(url: str, *, below: bool = True) -> dict[str, Listed]:
  """Returns the objects of a folder by name relative to it, sorted.

  Args:
    url: the folder.
    below: include the objects of its subfolders.

  Raises:
    FileNotFoundError: no such bucket.
    OSError: no permission, or the service cannot be reached.
    ValueError: a name that is no relative path.
  """
  bucket, key = split(url)
  prefix = f"{key}/" if key else ""
  with errors(url):
    blobs = client().list_blobs(
      bucket,
      prefix=prefix,
      delimiter=None if below else "/",
      fields="items(name,size,updated),prefixes,nextPageToken",
    )
    # A name that ends in "/" is the placeholder of an empty folder.
    found = {
      blob.name.removeprefix(prefix): Listed(blob.size, _nanoseconds(blob))
      for blob in blobs
      if not blob.name.endswith("/")
    }
  # An object may have any name, also one that would leave the local folder.
  for name in found:
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
      raise ValueError(
        f"{url}: an object is called {name!r}; expected names without empty"
        " parts, . and ... Rename it, or choose another folder."
      )
  return found


def fetch_files(urls: Iterable[str]) -> None:
  """Downloads objects of which the local copies are not current.

  A copy of an object that no longer exists is deleted; whoever opens it
  reports the missing file.
  """
  folders: dict[str, set[str]] = {}
  for url in urls:
    folder, _, name = url.rpartition("/")
    folders.setdefault(folder, set()).add(name)
  for folder, names in folders.items():
    found = listing(folder, below=False)
    fetch(folder, {n: found[n] for n in names if n in found})
    for name in names - set(found):
      local_path(f"{folder}/{name}").unlink(missing_ok=True)


def fetch_folder(
  url: str, select: Callable[[Mapping[str, Listed]], Iterable[str]] = iter
) -> Path:
  """Returns the local copy of a folder, complete and without other files.

  Args:
    url: the folder.
    select: names, relative to it -> those to copy.

  Raises:
    FileNotFoundError: no such bucket, or no object below the URL.
  """
  found = listing(url)
  if not found:
    raise FileNotFoundError(f"{url}: no such folder, or an empty one.")
  chosen = {name: found[name] for name in select(found)}
  with _locked(local_path(url)) as folder:
    download(url, chosen, folder)
    for parent, _, names in os.walk(folder):
      for name in names:
        path = Path(parent, name)
        if path.relative_to(folder).as_posix() not in chosen:
          path.unlink(missing_ok=True)
  return folder


def fetch(url: str, names: Mapping[str, Listed]) -> Path:
  """Returns the local folder of a URL, with current copies of these objects."""
  with _locked(local_path(url)) as folder:
    download(url, names, folder)
  return folder


def download(url: str, names: Mapping[str, Listed], to: Path) -> None:
  """Copies objects below a URL to a folder; skips current copies."""
  bucket, key = split(url)

  def copy(item: tuple[str, Listed]) -> None:
    name, listed = item
    target = to / name
    with contextlib.suppress(OSError):
      there = target.stat()
      if (there.st_size, there.st_mtime_ns) == (listed.size, listed.changed):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{uuid.uuid4().hex}.part")
    try:
      with errors(f"{url}/{name}"):
        blob = client().bucket(bucket).blob(f"{key}/{name}".lstrip("/"))
        blob.download_to_filename(draft)
      os.utime(draft, ns=(listed.changed, listed.changed))
      os.replace(draft, target)
    finally:
      draft.unlink(missing_ok=True)

  with ThreadPoolExecutor(_THREADS) as threads:
    list(threads.map(copy, names.items()))


def upload(url: str, content: bytes, if_generation: int | None = None) -> int:
  """Writes an object; returns its generation.

  Args:
    url: of the object.
    content: its bytes.
    if_generation: write only if the object has this generation, 0: only if it
      does not exist.

  Raises:
    FileExistsError: it has another generation.
    OSError: it could not be written.
  """
  with errors(url):
    blob = _blob(url)
    blob.upload_from_string(
      content,
      content_type="application/octet-stream",
      if_generation_match=if_generation,
    )
  assert blob.generation is not None
  return blob.generation


def read(url: str) -> bytes:
  """Returns the content of an object; raises FileNotFoundError, OSError."""
  with errors(url):
    return _blob(url).download_as_bytes()


def delete(url: str, if_generation: int | None = None) -> None:
  """Deletes an object if it exists, and has this generation."""
  with contextlib.suppress(FileNotFoundError, FileExistsError), errors(url):
    _blob(url).delete(if_generation_match=if_generation)


@functools.cache
def client() -> Any:
  """Returns the client of this process; call it within `errors`."""
  from google.cloud import storage

  # Only operations on whole projects use the name of a project.
  return storage.Client(project="none")


@contextlib.contextmanager
def errors(url: str) -> Iterator[None]:
  """Raises the client's exceptions as OSErrors that name the URL and a fix.

  Raises:
    ImportError: the extra is not installed.
  """
  try:
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud import storage  # noqa: F401 (`client` needs it)
  except ImportError as error:
    raise ImportError(
      f"{url} needs google-cloud-storage: pip install 'fusar-jax[gcs]'."
    ) from error

  bucket = url.removeprefix(SCHEME).partition("/")[0]
  try:
    yield
  except DefaultCredentialsError as error:
    raise PermissionError(
      f"{url}: no credentials found. On this machine run `gcloud auth"
      " application-default login`; on a slice give SERVICE_ACCOUNT to launch/."
    ) from error
  except exceptions.NotFound as error:
    raise FileNotFoundError(
      f"{url}: not found; does the bucket {SCHEME}{bucket} exist?"
    ) from error
  except (exceptions.Forbidden, exceptions.Unauthorized) as error:
    raise PermissionError(
      f"{url}: no permission ({error.message}). Give this account"
      f" roles/storage.objectUser on {SCHEME}{bucket}."
    ) from error
  except exceptions.PreconditionFailed as error:
    raise FileExistsError(
      f"{url}: another process has written this object."
    ) from error
  except (
    exceptions.GoogleAPIError,
    GoogleAuthError,
    requests.exceptions.RequestException,
  ) as error:
    raise OSError(f"{url}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
  """Creates a folder; the processes of a machine fill it one after another.

  All but the first then find it filled.
  """
  folder.mkdir(parents=True, exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):  # A file system without locks.
      fcntl.flock(handle, fcntl.LOCK_EX)
    yield folder
  finally:
    os.close(handle)


def _blob(url: str):
  bucket, key = split(url)
  return client().bucket(bucket).blob(key)


def _nanoseconds(blob) -> int:
  """Returns the time of the last change, exactly, for a local file's mtime."""
  since = blob.updated - _EPOCH
  return since // datetime.timedelta(microseconds=1) * 1000
