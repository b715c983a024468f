"""The page for people: GET / and the scenes behind it.

The page is static files; everything it shows comes from the endpoints here, so
it works without a connection to anywhere else. Its content security policy
allows no script and no style but these files.
"""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from fusar_jax.serving import scene_anchors, scene_files
from fusar_jax.serving.access import expect_type
from fusar_jax.serving.answers import failure
from fusar_jax.serving.event_stream import EventStream, event
from fusar_jax.serving.examples import EXAMPLES, ExampleScenes
from fusar_jax.serving.file_store import FileLimits, FileStore
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.request_body import body_chunks, read_body
from fusar_jax.serving.scene_answers import SceneAsker
from fusar_jax.serving.scene_questions import check_ask, read_ask, read_json
from fusar_jax.serving.scene_raster import suffix_of
from fusar_jax.serving.scene_tiles import SIDE, SceneTiles
from fusar_jax.serving.scenes import Scene, Scenes
from fusar_jax.serving.static_files import static_file
from fusar_jax.simulation.questions import KINDS
from fusar_jax.simulation.targets import CLASSES

_MAX_NPZ = 2**24
_MAX_JSON = 2**16


class Page:
  """Routes of the page; `close` deletes the scenes.

  Attributes:
    scenes: that are open.
  """

  def __init__(
    self,
    folder: Path,
    name: str,
    asker: SceneAsker,
    file_bytes: int,
    bands: tuple[str, ...] = (),
  ):
    """See the class.

    Args:
      folder: empty, for uploads and examples.
      name: of the model.
      asker: asks the model.
      file_bytes: of an uploaded scene.
      bands: that are shown at first of scenes that have them.
    """
    self._folder, self._name, self._asker = folder, name, asker
    limits = asker.limits
    for part in ("files", "examples"):
      (folder / part).mkdir()
    self._files = FileStore(
      folder / "files",
      FileLimits(
        limits.scenes, file_bytes, 4 * file_bytes, 2 * limits.idle_seconds
      ),
    )
    self._ids: dict[str, str] = {}
    self._tiles: dict[str, SceneTiles] = {}
    self._examples = ExampleScenes(folder / "examples")
    self.scenes = Scenes(limits, self._dropped, bands)

  def close(self) -> None:
    """Drops all scenes and deletes their files."""
    self.scenes.close()
    self._files.close()

  def add_routes(self, app: FastAPI) -> None:
    """Adds the routes."""

    @app.get("/")
    async def index() -> Response:
      return static_file("index.html")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
      return static_file(name)

    @app.get("/page")
    async def info() -> dict[str, Any]:
      return self._info()

    @app.post("/scenes")
    async def upload(http: Request, name: str = "image") -> dict[str, Any]:
      expect_type(http, "application/octet-stream")
      self.scenes.check()
      return await self._upload(http, name[:200])

    @app.post("/scenes/named")
    async def named(http: Request) -> dict[str, Any]:
      expect_type(http, "application/json")
      self.scenes.check()
      body = read_json(await read_body(http, _MAX_JSON))
      url = body.get("url") if isinstance(body, dict) else None
      if not isinstance(url, str):
        raise RequestError(422, "url: expected a text.", "url")
      return await self._run(self._fetch, url)

    @app.post("/examples/{index}")
    async def example(http: Request, index: int) -> dict[str, Any]:
      expect_type(http, "application/json")
      if not 0 <= index < len(EXAMPLES):
        raise RequestError(404, "no such example.")
      self.scenes.check()
      scene = await self._run(self._examples.open, index, self.scenes)
      return self._list(scene)

    @app.get("/scenes/{id}")
    async def describe(id: str) -> dict[str, Any]:
      return self._describe(self.scenes.get(id))

    @app.delete("/scenes/{id}")
    async def drop(id: str) -> dict[str, Any]:
      await self._run(self.scenes.drop, id)
      return {"id": id, "deleted": True}

    @app.post("/scenes/{id}/bands")
    async def bands(http: Request, id: str) -> dict[str, Any]:
      expect_type(http, "application/json")
      body = read_json(await read_body(http, _MAX_JSON))
      return await self._run(self._with_bands, id, body)

    @app.get("/scenes/{id}/tiles/{level}/{x}/{y}.png")
    async def tile(id: str, level: int, x: int, y: int) -> Response:
      tiles = self._tiles[self.scenes.get(id).id]
      complete = tiles.is_complete(level)
      try:
        content = await self._run(tiles.tile, level, x, y)
      except ValueError as error:
        scene = self.scenes.get(id)
        message = str(error).replace(str(scene.path), scene.name)
        raise RequestError(400, message, "scene") from None
      age = "private, max-age=3600, immutable" if complete else "no-store"
      return Response(content, 200, {"Cache-Control": age}, "image/png")

    @app.put("/scenes/{id}/anchors")
    async def add_anchors(http: Request, id: str) -> dict[str, Any]:
      expect_type(http, "application/octet-stream")
      scene = self.scenes.get(id)
      content = await read_body(http, _MAX_NPZ)
      await self._run(scene_anchors.add_file, scene, content)
      return self._describe(scene)

    @app.get("/scenes/{id}/anchors")
    async def anchors(
      id: str,
      window: str,
      condition: str = "aligned",
      year: int | None = None,
      others: Annotated[list[str] | None, Query(max_length=16)] = None,
    ) -> dict[str, Any]:
      scene = self.scenes.get(id)
      ask = check_ask(
        {"window": _numbers(window), "question": "?", "anchors": condition}
      )
      part = self._asker.plan(scene, ask).parts[0]
      found = await self._run(
        scene_anchors.window_anchors,
        scene,
        part.window,
        part.shape,
        condition,
        self._asker.reader.alphaearth,
        year,
        self._others(others or []),
      )
      return scene_anchors.layer(found, part.window)

    @app.post("/scenes/{id}/ask")
    async def ask(http: Request, id: str) -> Response:
      expect_type(http, "application/json")
      scene = self.scenes.get(id)
      asked = read_ask(await read_body(http, _MAX_JSON))
      plan = self._asker.plan(scene, asked)
      events = self._asker.events(
        scene, asked, plan, self._others(asked.others)
      )
      return EventStream(_stream(events))

    @app.get("/scenes/{id}/findings.{kind}")
    async def download(id: str, kind: str, answers: str = "") -> Response:
      scene = self.scenes.get(id)
      wanted = set(_numbers(answers)) if answers else None
      kept = [a for a in scene.answers if wanted is None or a.id in wanted]
      write = {"geojson": scene_files.geojson, "csv": scene_files.csv}.get(kind)
      if write is None:
        raise RequestError(404, "expected findings.geojson or findings.csv.")
      kinds = {"geojson": "application/geo+json", "csv": "text/csv"}
      text = await self._run(write, scene, kept)
      return Response(
        text,
        200,
        {"Content-Disposition": f'attachment; filename="findings.{kind}"'},
        kinds[kind],
      )

  def _info(self) -> dict[str, Any]:
    reader = self._asker.reader
    years = reader.alphaearth.years if reader.alphaearth else ()
    return {
      "model": self._name,
      "anchors": reader.assistant.config.tlm is not None,
      "side": self._asker.side,
      "tile": SIDE,
      "classes": list(dict.fromkeys([*KINDS, *CLASSES])),
      "years": list(years),
      "examples": [
        {"title": each.title, "asks": each.asks} for each in EXAMPLES
      ],
      "named": {
        "hosts": list(reader.sources.hosts),
        "folders": len(reader.sources.folders) > 0,
      },
      "limits": {
        "bytes": self._files.limits.file_bytes,
        "pixels": self.scenes.limits.pixels,
        "tiles": self.scenes.limits.tiles,
      },
    }

  def _describe(self, scene: Scene) -> dict[str, Any]:
    tiles = self._tiles[scene.id]
    height, width = scene.size
    centre = None
    if scene.place is not None:
      lon, lat = scene.place.to_lonlat([height / 2], [width / 2])
      centre = [float(lon[0]), float(lat[0])]
    return {
      "id": scene.id,
      "name": scene.name,
      "width": width,
      "height": height,
      "levels": tiles.levels,
      "overview": tiles.progress,
      "problem": tiles.failure,
      "simulated": scene.simulated,
      "truth": [dataclasses.asdict(target) for target in scene.truth],
      "anchors": scene_anchors.source_of(scene, self._asker.reader.alphaearth),
      "quantity": scene.info["quantity"],
      "bands": [stretch.band for stretch in scene.stretches],
      "choices": scene.choices,
      "notes": scene.info["notes"],
      "distance": scene.info["metadata"].get("ground_sampling_distance"),
      "centre": centre,
      "answers": [answer.to_json() for answer in scene.answers],
    }

  def _list(self, scene: Scene) -> dict[str, Any]:
    """Lists an open scene; its file and tiles live as long as it does."""
    try:
      self.scenes.add(scene)
    except RequestError:
      scene.close()
      raise
    self._tiles[scene.id] = SceneTiles(scene, self._folder)
    return self._describe(scene)

  def _with_bands(self, id: str, body: Any) -> dict[str, Any]:
    """Shows other bands: a new scene takes the place of one, and its file."""
    before = self.scenes.get(id)
    bands = body.get("bands") if isinstance(body, dict) else None
    if not isinstance(bands, list) or tuple(bands) not in before.choices:
      known = " or ".join(",".join(choice) for choice in before.choices)
      raise RequestError(400, f"bands: expected {known or 'none'}.", "bands")
    scene = self.scenes.open(before.path, before.name, bands=bands)
    scene.take_over(before)
    file = self._ids.pop(id, None)
    try:
      self.scenes.replace(id, scene)
    except RequestError:  # Dropped meanwhile.
      scene.close()
      if file is not None:
        self._files.delete(file)
      raise
    if file is not None:
      self._ids[scene.id] = file
    self._tiles[scene.id] = SceneTiles(scene, self._folder)
    return self._describe(scene)

  def _dropped(self, scene: Scene) -> None:
    self._tiles.pop(scene.id, None)
    file = self._ids.pop(scene.id, None)
    if file is not None:
      self._files.delete(file)

  def _others(self, ids) -> list[Scene]:
    return [self.scenes.get(id) for id in ids]

  async def _run(self, function, *arguments):
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(
      self._asker.threads, functools.partial(function, *arguments)
    )

  async def _upload(self, http: Request, name: str) -> dict[str, Any]:
    """Stores a body and opens it; nothing is left of one that is no scene."""
    start, chunks = b"", body_chunks(http)
    while len(start) < 8 and (chunk := await anext(chunks, b"")):
      start += chunk
    incoming = self._files.begin(f"scene{suffix_of(start)}")
    try:
      incoming.write(start)
      async for chunk in chunks:
        incoming.write(chunk)
      file = incoming.finish()
    except BaseException:
      incoming.abort()
      raise
    return await self._run(self._open_file, file.id, name)

  def _fetch(self, url: str) -> dict[str, Any]:
    """Opens what the operator allows to be named: an address or a path."""
    content = self._asker.reader.sources.read(url, "scene")
    suffix = suffix_of(content[:8])
    file = self._files.add(content, f"scene{suffix}")
    return self._open_file(file, re.split(r"[/\\]", url)[-1][:200])

  def _open_file(self, file: str, name: str) -> dict[str, Any]:
    """Opens a stored file, which is deleted with its scene."""
    try:
      scene = self.scenes.open(self._files.path(file), name)
    except BaseException:
      self._files.delete(file)
      raise
    self._ids[scene.id] = file
    try:
      return self._list(scene)
    except BaseException:
      self._dropped(scene)
      raise


async def _stream(
  events: AsyncGenerator[dict[str, Any], None],
) -> AsyncGenerator[str, None]:
  async with contextlib.aclosing(events):
    try:
      async for one in events:
        yield event(one)
    except Exception:
      logging.getLogger(__name__).exception("an answer failed")
      error = failure()
      yield event({"type": "error", "message": str(error), "status": 500})


def _numbers(text: str) -> list[int]:
  """Reads "1,2,3"."""
  parts = text.split(",")
  if len(parts) > 1000 or not all(re.fullmatch(r"\d{1,9}", p) for p in parts):
    raise RequestError(422, f"expected whole numbers, got {text[:40]!r}.")
  return [int(part) for part in parts]
