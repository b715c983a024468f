"""Tokens of an answer as text that can be sent before the answer has ended.

What was sent cannot be taken back. So the text stops before what the next
tokens may change: half a character, a box whose coordinates are converted when
its bracket closes, and the beginning of a stop text.
"""

import re
from collections.abc import Sequence

from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.tasks import boxes as boxes_lib

_OPEN_BOX = re.compile(r"\[[\s\d.,-]*\Z")
_HALF = "\ufffd"


class AnswerText:
  """One answer that grows.

  Attributes:
    tokens: so far; those behind a stop text are dropped.
    text: what can be sent so far, in full.
    stopped: whether a stop text has ended it.
  """

  def __init__(
    self,
    tokenizer: Tokenizer,
    sizes: tuple[tuple[int, int], tuple[int, int]] | None,
    stops: Sequence[str] = (),
  ):
    """See the attributes.

    Args:
      tokenizer: of the model.
      sizes: (height, width) of the image as the model sees it and as it was
        sent, from and to which boxes are converted; None: there is no image.
      stops: texts that end the answer, and are no part of it.
    """
    self._tokenizer, self._sizes, self._stops = tokenizer, sizes, stops
    self.tokens: list[int] = []
    self.text = ""
    self.stopped = False

  def add(self, tokens: Sequence[int], *, last: bool) -> str:
    """Returns the text that these tokens add.

    Args:
      tokens: new ones.
      last: the answer has ended.
    """
    before = len(self.text)
    # A stop text ends the answer at the same token, however many come at once.
    steps = [[t] for t in tokens] if self._stops else [list(tokens)]
    for i, step in enumerate(steps or [[]]):
      self.tokens += step
      self.text = self._visible(last and i + 1 >= len(steps))
      if self.stopped:
        break
    return self.text[before:]

  def _visible(self, last: bool) -> str:
    text = self._tokenizer.decode(self.tokens, skip_special=True)
    if not last:
      text = text.rstrip(_HALF)
    converts = self._sizes is not None and self._sizes[0] != self._sizes[1]
    if converts and not last:
      text = _OPEN_BOX.sub("", text)
    if self._sizes is not None:
      text = boxes_lib.scale_text(text, *self._sizes)
    found = [text.find(stop) for stop in self._stops if stop in text]
    if found:
      self.stopped = True
      return text[: min(found)]
    return text if last else text[: len(text) - self._held_back(text)]

  def _held_back(self, text: str) -> int:
    """Returns the length of the end of a text that may begin a stop text."""
    return max(
      (
        size
        for stop in self._stops
        for size in range(1, len(stop))
        if text.endswith(stop[:size])
      ),
      default=0,
    )
