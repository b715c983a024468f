"""Fixtures: gs:// without a cloud, an object store on this machine."""

import contextlib
import logging
import pathlib
from http import HTTPStatus

import pytest


@pytest.fixture(scope="session")
def object_store(free_port):
  """(emulator of an object store on this machine, its address)."""
  from gcp_storage_emulator import server

  for _, handlers in server.HANDLERS:
    for method, handler in handlers.items():
      handlers[method] = _with_generations(handler)
  logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
  port = free_port()
  with server.create_server("127.0.0.1", port, in_memory=True) as emulator:
    yield emulator, f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(object_store, tmp_path, monkeypatch):
  """gs://bucket, empty, as are the local copies.

  For this process and those that it starts.
  """
  from fusar_jax.io.object_store import client

  emulator, address = object_store
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
    monkeypatch.setenv(name, address)
  client.cache_clear()
  emulator.wipe()
  client().create_bucket("bucket")
  yield "gs://bucket"
  client.cache_clear()


def _with_generations(handler):
  """Adds the generations of objects, which this emulator ignores.

  Clients write an object only if it still has the generation that they read.
  """

  def handle(request, response, storage, *rest):
    name = request.params.get("object_id") or request.query.get("name", [""])[0]
    if request.query.get("uploadType") == ["multipart"]:
      name = request.data["meta"].get("name", name)
    generation = "0"
    if name and (folder := request.params.get("bucket_name")):
      with contextlib.suppress(FileNotFoundError, LookupError, NotFound):
        generation = storage.get_file_obj(folder, name)["generation"]
    response["x-goog-generation"] = generation
    if request.query.get("ifGenerationMatch", [generation]) != [generation]:
      response.status = HTTPStatus.PRECONDITION_FAILED
    elif request.query.get("ifGenerationNotMatch") == [generation]:
      response.status = HTTPStatus.NOT_MODIFIED
    else:
      handler(request, response, storage, *rest)

  from gcp_storage_emulator.exceptions import NotFound

  return handle


@pytest.fixture(scope="session")
def upload_folder():
  """upload_folder(folder, url): copies all files of a folder to a bucket."""

  def upload_folder(folder: pathlib.Path, url: str) -> None:
    from fusar_jax.io import object_store
    from fusar_jax.io.list_files import files_below

    for path in files_below(folder):
      name = path.relative_to(folder).as_posix()
      object_store.upload(f"{url}/{name}", path.read_bytes())

  return upload_folder
