"""Conversations to prompts, by the chat template of Qwen2.5-VL.

A question about one image gives the prompt of `Assistant.ask`. As in training,
the images of a turn precede its text, in whatever order the parts come.
"""

from collections.abc import Sequence

from fusar_jax.data.prompts import SYSTEM, plain
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.serving.chat_request import Message
from fusar_jax.serving.limits import RequestError
from fusar_jax.tasks import boxes as boxes_lib


def check_turns(messages: Sequence[Message]) -> None:
  """Checks that turns alternate and end with the user's.

  Raises:
    RequestError: 400, another order, or an image that is not the user's.
  """
  turns = messages[1:] if messages[0].role == "system" else messages
  expected = ("user", "assistant")
  for i, turn in enumerate(turns):
    if turn.role != expected[i % 2]:
      raise RequestError(
        400,
        f"messages: turn {i} is of {turn.role}, expected {expected[i % 2]}:"
        " one system message or none, then user and assistant in turn.",
        "messages",
      )
  if not turns or turns[-1].role != "user":
    raise RequestError(400, "messages: the last is not the user's.", "messages")
  if any(m.images for m in messages if m.role != "user"):
    raise RequestError(400, "messages: only a user sends images.", "messages")
  if not turns[-1].text.strip():
    raise RequestError(
      400, "messages: the last one has no text: what is asked?", "messages"
    )


def encode(
  messages: Sequence[Message],
  visual_tokens: Sequence[int],
  tokenizer: Tokenizer,
  sizes: tuple[tuple[int, int], tuple[int, int]] | None,
) -> list[int]:
  """Returns the ids of the prompt.

  Args:
    messages: see `check_turns`.
    visual_tokens: number of visual tokens (M) per image, in their order.
    tokenizer: of the model.
    sizes: (height, width) of the first image as sent and as the model sees it,
      to which boxes in the texts refer; None: there is no image.
  """
  pieces = []
  if messages[0].role != "system":
    pieces.append(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n")
  for message in messages:
    pictures = "<|vision_start|><|image_pad|><|vision_end|>"
    text = message.text
    if sizes is not None:
      text = boxes_lib.scale_text(text, *sizes)
    pieces.append(
      f"<|im_start|>{message.role}\n{pictures * len(message.images)}"
      f"{plain(text)}<|im_end|>\n"
    )
  pieces.append("<|im_start|>assistant\n")
  ids = tokenizer.encode("".join(pieces))
  image, counts = tokenizer.special_tokens().image, iter(visual_tokens)
  return [
    piece
    for token in ids
    for piece in ([token] * next(counts) if token == image else [token])
  ]
