"""Fields of a chat request, OpenAI's and ours.

A field that this server does not follow is an error, unless it has the value
that changes nothing: no option is ignored without notice.
"""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from fusar_jax.io import strict_json
from fusar_jax.serving.limits import RequestError


class _Strict(pydantic.BaseModel):
  model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
  """A text of a message."""

  type: Literal["text"]
  text: str


class ImageUrl(_Strict):
  """An image as a data URL; `detail` has no effect on a model of one size."""

  url: str
  detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Strict):
  """An image of a message."""

  type: Literal["image_url"]
  image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Strict):
  """One turn; images belong to the user's."""

  role: Literal["system", "user", "assistant"]
  content: str | list[Part]
  name: None = None

  @property
  def text(self) -> str:
    """The texts of all parts."""
    if isinstance(self.content, str):
      return self.content
    texts = [part.text for part in self.content if isinstance(part, TextPart)]
    return "\n".join(texts)

  @property
  def images(self) -> list[str]:
    """Their URLs."""
    if isinstance(self.content, str):
      return []
    return [
      part.image_url.url for part in self.content if isinstance(part, ImagePart)
    ]


class StreamOptions(_Strict):
  """Options of a stream."""

  include_usage: bool = False


class TextFormat(_Strict):
  """The only format of answers."""

  type: Literal["text"]


class Georeference(_Strict):
  """Where an image lies: see `geo.georeference.Georeference`.

  Attributes:
    crs: "EPSG:32633"; WKT and PROJ strings can name files, which PROJ opens.
    transform: (a, b, c, d, e, f), x = a col + b row + c, y = d col + e row + f.
  """

  crs: Annotated[str, Field(pattern=r"^EPSG:\d{4,6}$")]
  transform: Annotated[list[float], Field(min_length=6, max_length=6)]


class ChatRequest(_Strict):
  """Body of POST /v1/chat/completions.

  Attributes:
    anchors: ours, of the first image, see `serving.anchors`.
    bbox: ours, [left, top, right, bottom] in pixels: the window of the first
      image that the model sees; boxes are in pixels of this window.
    georeference: ours, of the first image before its crop.
    year: ours, of AlphaEarth vectors that the server looks up.
  """

  messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
  model: str | None = None
  max_tokens: Annotated[int, Field(ge=1)] | None = None
  max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
  temperature: Annotated[float, Field(ge=0, le=2)] | None = None
  seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
  stop: str | Annotated[list[str], Field(max_length=4)] | None = None
  stream: bool | None = None
  stream_options: StreamOptions | None = None
  anchors: Any = None
  bbox: Annotated[list[int], Field(min_length=4, max_length=4)] | None = None
  georeference: Georeference | None = None
  year: int | None = None
  # Of OpenAI's fields, the values that change nothing.
  n: Literal[1] | None = None
  top_p: Annotated[float, Field(ge=1, le=1)] | None = None
  presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
  frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
  logprobs: Literal[False] | None = None
  response_format: TextFormat | None = None
  user: str | None = None

  @property
  def stops(self) -> tuple[str, ...]:
    """Texts that end an answer."""
    if self.stop is None:
      return ()
    return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def read_request(body: bytes) -> ChatRequest:
  """Returns the request of a body.

  Raises:
    RequestError: 400, not JSON; 422, a field is missing, unknown, of another
      type or out of range.
  """
  try:
    text = body.decode("utf-8")
    value = strict_json.parse(text)
    strict_json.check_text(text, value)
  except ValueError as error:
    raise RequestError(400, f"the body is not JSON: {error}.") from None
  try:
    request = ChatRequest.model_validate(value)
  except pydantic.ValidationError as error:
    problems = error.errors(include_url=False, include_input=False)
    first = ".".join(map(str, problems[0]["loc"])) or None
    listed = "; ".join(
      f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}"
      for p in problems[:5]
    )
    raise RequestError(422, f"{listed}.", first) from None
  if "" in request.stops:
    raise RequestError(422, "stop: an empty text.", "stop")
  if request.stream_options is not None and not request.stream:
    raise RequestError(
      422, "stream_options needs stream: true.", "stream_options"
    )
  return request
