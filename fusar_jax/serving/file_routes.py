"""Endpoints of uploaded files, as OpenAI's /v1/files.

Whoever may use the server may list and delete all files: there is one token.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fusar_jax.serving.file_store import FileStore, StoredFile
from fusar_jax.serving.limits import RefusedError
from fusar_jax.serving.upload_form import UploadForm

# Boundaries, headers and texts of a form.
_FORM_BYTES = 2**16
# A client that sends nothing for so long is gone.
_SILENCE = 60.0


def add_file_routes(
  app: FastAPI, store: FileStore, accepts: Callable[[], None]
) -> None:
  """Adds the endpoints.

  Args:
    app: the application.
    store: of uploaded files.
    accepts: raises RefusedError if the server takes nothing more.
  """

  @app.post("/v1/files")
  async def upload(http: Request) -> JSONResponse:
    accepts()
    stated = http.headers.get("content-length", "0")
    most = store.limits.file_bytes
    if stated.isdecimal() and int(stated[:20]) > most + _FORM_BYTES:
      raise RefusedError(413, f"the file is larger than {most:,} bytes.")
    form = UploadForm(http.headers.get("content-type", ""), store)
    try:
      async for chunk in _chunks(http):
        form.write(chunk)
      file = form.finish()
    except BaseException:
      form.abort()
      raise
    return JSONResponse(_as_json(file, form.fields.get("purpose")))

  @app.get("/v1/files")
  async def listed() -> dict:
    data = [_as_json(file) for file in store.list()]
    return {"object": "list", "data": data, "has_more": False}

  @app.get("/v1/files/{id}")
  async def info(id: str) -> dict:
    return _as_json(store.info(id))

  @app.delete("/v1/files/{id}")
  async def delete(id: str) -> dict:
    store.delete(id)
    return {"id": id, "object": "file", "deleted": True}


async def _chunks(http: Request) -> AsyncIterator[bytes]:
  while True:
    try:
      async with asyncio.timeout(_SILENCE):
        message = await http.receive()
    except TimeoutError:
      raise RefusedError(
        504, f"the client sent nothing for {_SILENCE:g} seconds."
      ) from None
    if message["type"] == "http.disconnect":
      raise RefusedError(400, "the client closed the connection.")
    yield message.get("body", b"")
    if not message.get("more_body", False):
      return


def _as_json(file: StoredFile, purpose: str | None = None) -> dict:
  return {
    "id": file.id,
    "object": "file",
    "bytes": file.size,
    "created_at": int(file.created),
    "filename": file.name,
    "purpose": purpose or "vision",
    "status": "processed",
  }
