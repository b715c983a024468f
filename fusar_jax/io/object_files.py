"""The file system through which Orbax writes checkpoints to gs://.

Orbax writes arrays by TensorStore, and creates, lists and deletes everything
else by `etils.epath`, which needs an fsspec file system. This one is smaller
than gcsfs, which installs 30 packages, detects the kind of a bucket over gRPC,
and caches listings, so one process would not see the files of another.
"""

import io
from typing import Any

import fsspec

from fusar_jax.io import object_store


def register() -> None:
  """Makes fsspec, and so `epath.Path`, open gs:// by `ObjectFiles`."""
  for scheme in ObjectFiles.protocol:
    fsspec.register_implementation(scheme, ObjectFiles, clobber=True)


class ObjectFiles(fsspec.AbstractFileSystem):
  """Files and folders of all buckets; a folder is a prefix of names.

  An empty object whose name ends in "/" keeps a folder that has no files.
  """

  protocol = ("gs", "gcs")
  cachable = False

  @classmethod
  def _strip_protocol(cls, path: Any) -> Any:
    if isinstance(path, list):
      return [cls._strip_protocol(one) for one in path]
    return str(path).removeprefix(object_store.SCHEME).rstrip("/")

  def ls(self, path: str, detail: bool = True, **_) -> list:
    """Returns the entries of a folder; of a file, itself."""
    path = self._strip_protocol(path)
    bucket, _, key = path.partition("/")
    prefix = f"{key}/" if key else ""
    with object_store.errors(f"gs://{path}"):
      blobs = object_store.client().list_blobs(
        bucket, prefix=prefix, delimiter="/"
      )
      found = [
        _file(f"{bucket}/{b.name}", b.size)
        for b in blobs
        if not b.name.endswith("/")
      ]
      found += [_folder(f"{bucket}/{p}"[:-1]) for p in sorted(blobs.prefixes)]
    if not found and key:
      found = [self.info(path)]
      if found[0]["type"] == "directory":
        found = []
    return found if detail else [entry["name"] for entry in found]

  def info(self, path: str, **_) -> dict[str, Any]:
    """Returns name, size in bytes and type; raises FileNotFoundError."""
    path = self._strip_protocol(path)
    bucket, _, key = path.partition("/")
    if not key:
      return _folder(path)
    with object_store.errors(f"gs://{path}"):
      blobs = object_store.client().list_blobs(
        bucket, prefix=key, delimiter="/"
      )
      for blob in blobs:
        if blob.name == key:
          return _file(path, blob.size)
      if f"{key}/" in blobs.prefixes:
        return _folder(path)
    raise FileNotFoundError(f"gs://{path}")

  def mkdir(self, path: str, create_parents: bool = True, **_) -> None:
    self.makedirs(path)

  def makedirs(self, path: str, exist_ok: bool = True) -> None:
    del exist_ok  # epath checks it.
    self.pipe_file(f"{self._strip_protocol(path)}/", b"")

  def pipe_file(self, path: str, value: bytes, **_) -> None:
    bucket, _, key = str(path).removeprefix("gs://").partition("/")
    with object_store.errors(f"gs://{bucket}/{key}"):
      blob = object_store.client().bucket(bucket).blob(key)
      blob.upload_from_string(value, "application/octet-stream")

  def rm(self, path: Any, recursive: bool = False, **_) -> None:
    """Deletes a file, or with `recursive` a folder and all below it."""
    path = self._strip_protocol(path)
    bucket, _, key = path.partition("/")
    info = self.info(path)
    if info["type"] == "directory" and not recursive:
      raise IsADirectoryError(f"gs://{path}")
    prefix = f"{key}/" if info["type"] == "directory" else key
    with object_store.errors(f"gs://{path}"):
      for blob in object_store.client().list_blobs(bucket, prefix=prefix):
        if recursive or blob.name == key:
          object_store.delete(f"gs://{bucket}/{blob.name}")

  def _open(self, path: str, mode: str = "rb", **_) -> Any:
    path = self._strip_protocol(path)
    if mode == "rb":
      bucket, _, key = path.partition("/")
      self.info(path)  # Raises FileNotFoundError.
      return object_store.client().bucket(bucket).blob(key).open("rb")
    if mode in ("wb", "xb"):
      return _Upload(self, path)
    raise ValueError(f"gs://{path}: cannot be opened with mode {mode!r}.")


class _Upload(io.BytesIO):
  """A small file that is uploaded when it is closed."""

  def __init__(self, files: ObjectFiles, path: str):
    super().__init__()
    self._files, self._path = files, path

  def close(self) -> None:
    if not self.closed:
      self._files.pipe_file(self._path, self.getvalue())
    super().close()


def _file(name: str, size: int) -> dict[str, Any]:
  return {"name": name, "size": size, "type": "file"}


def _folder(name: str) -> dict[str, Any]:
  return {"name": name, "size": 0, "type": "directory"}
