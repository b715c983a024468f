"""Endpoints of uploaded files, as OpenAI's /v1/files.

Whoever may use the server may list and delete all files: there is one token.
"""

from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from fusar_jax.serving.file_store import FileStore, StoredFile
from fusar_jax.serving.request_body import body_chunks, check_stated_length
from fusar_jax.serving.upload_form import UploadForm

# Boundaries, headers and texts of a form.
_FORM_BYTES = 2**16


def add_file_routes(
  app: FastAPI, store: FileStore, accepts: Callable[[], None]
) -> None:
  """Adds the endpoints.

  Args:
    app: the application.
    store: of uploaded files.
    accepts: raises RequestError if the server takes nothing more.
  """

  @app.post("/v1/files")
  async def upload(http: Request) -> JSONResponse:
    accepts()
    check_stated_length(
      http, store.limits.file_bytes, "the file", around=_FORM_BYTES
    )
    form = UploadForm(http.headers.get("content-type", ""), store)
    try:
      async for chunk in body_chunks(http):
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
