"""From a chat request to a prompt: images, anchors, limits and token ids."""

import dataclasses
import hashlib
from collections.abc import Sequence

from fusar_jax.data import vision
from fusar_jax.data.examples import Example, count_visual_tokens, model_size
from fusar_jax.geo.georeference import Georeference
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.continuous import RowOptions
from fusar_jax.serving import conversation
from fusar_jax.serving.anchors import AlphaEarth, Found, read_field
from fusar_jax.serving.chat_request import ChatRequest, Message
from fusar_jax.serving.limits import Limits, RequestError
from fusar_jax.serving.sources import Sources
from fusar_jax.serving.uploads import Upload, read_upload


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
  """A request as the engine takes it.

  Attributes:
    example: the prompt.
    options: limit, temperature and seed of the answer.
    image_key: equal for equal images.
    sizes: (height, width) of the first image as the model sees it, and as it
      was sent; None: there is no image.
    anchors: what was found, or None without an image.
  """

  example: Example
  options: RowOptions
  image_key: bytes
  sizes: tuple[tuple[int, int], tuple[int, int]] | None
  anchors: Found | None


@dataclasses.dataclass(frozen=True)
class Reader:
  """Reads requests; safe for threads.

  Attributes:
    assistant: the model.
    limits: of the server.
    alphaearth: archive of the server, or None.
    sources: of images.
  """

  assistant: Assistant
  limits: Limits
  alphaearth: AlphaEarth | None = None
  sources: Sources = Sources()

  def read(self, request: ChatRequest) -> Question:
    """Returns the question.

    Raises:
      RequestError: 400 or 413, the message says what is wrong.
    """
    options = self._options(request)
    conversation.check_turns(request.messages)
    uploads = self._uploads(request)
    if self.assistant.config.tlm is None and request.anchors is not None:
      raise RequestError(
        400, "anchors: the model has no TLM to use them.", "anchors"
      )
    found = None
    if uploads:
      found = read_field(
        request.anchors, uploads[0], self.alphaearth, request.year
      )
    return self.prompt(request.messages, uploads, found, options)

  def prompt(
    self,
    messages: Sequence[Message],
    uploads: Sequence[Upload],
    found: Found | None,
    options: RowOptions,
    shown: tuple[int, int] | None = None,
  ) -> Question:
    """Returns a question about images that have been read.

    Args:
      messages: that have passed `conversation.check_turns`, with a part for
        each image.
      uploads: the images.
      found: anchors of the first image, or None.
      options: of the answer.
      shown: (height, width) that boxes in texts and answer refer to; None: the
        first image's own.

    Raises:
      RequestError: 400 or 413, as `read`.
    """
    config, tokenizer = self.assistant.config, self.assistant.need_tokenizer()
    seen = [model_size(upload.size, config) for upload in uploads]
    counts = [count_visual_tokens(size, config) for size in seen]
    # Before anything is resized or tokenised: a token has a character at least.
    self._check_length(sum(counts))
    sizes = (seen[0], shown or uploads[0].size) if uploads else None
    ids = conversation.encode(
      messages, counts, tokenizer, sizes and (sizes[1], sizes[0])
    )
    self._check_length(len(ids))
    images = [
      vision.resize(upload.pixels, size)
      for upload, size in zip(uploads, seen, strict=True)
    ]
    anchors = [found and found.anchors, *[None] * (len(images) - 1)]
    try:
      example = self.assistant.example(ids, images, anchors[: len(images)])
    except ValueError as error:
      raise RequestError(400, str(error)) from None
    digest = hashlib.sha256(repr(example.grids).encode())
    for patches in example.patches:
      digest.update(patches.tobytes())
    return Question(example, options, digest.digest(), sizes, found)

  def _options(self, request: ChatRequest) -> RowOptions:
    asked = request.max_completion_tokens or request.max_tokens
    limit = self.limits.new_tokens
    if asked is not None and asked > limit:
      raise RequestError(
        400, f"max_tokens {asked}: at most {limit} here.", "max_tokens"
      )
    return RowOptions(
      asked or limit, request.temperature or 0.0, request.seed or 0
    )

  def _uploads(self, request: ChatRequest) -> list[Upload]:
    urls = [url for message in request.messages for url in message.images]
    if len(urls) > self.limits.images:
      raise RequestError(
        400,
        f"{len(urls)} images, at most {self.limits.images} are read.",
        "messages",
      )
    for name in ("anchors", "bbox", "georeference"):
      if not urls and getattr(request, name) is not None:
        raise RequestError(400, f"{name}: there is no image.", name)
    uploads = []
    for i, url in enumerate(urls):
      field = f"image_url {i}"
      content = self.sources.read(url, field)
      uploads.append(read_upload(content, self.limits, field))
    if request.georeference is not None:
      place = _place(request)
      uploads[0] = dataclasses.replace(uploads[0], place=place)
    if request.bbox is not None:
      uploads[0] = uploads[0].crop(request.bbox)
    return uploads

  def _check_length(self, tokens: int) -> None:
    if tokens > self.limits.prompt_tokens:
      raise RequestError(
        413,
        f"the prompt has {tokens} tokens or more, at most"
        f" {self.limits.prompt_tokens} are read. Shorten it, or send a part of"
        " the image (bbox).",
        "messages",
      )


def _place(request: ChatRequest) -> Georeference:
  assert request.georeference is not None
  given = request.georeference
  try:
    return Georeference("affine", given.crs, tuple(given.transform))
  except ValueError as error:
    raise RequestError(400, str(error), "georeference") from None
