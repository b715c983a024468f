"""Chat template of Qwen2.5-VL and the mask of supervised tokens.

    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    <|vision_start|><|image_pad|>...<|vision_end|>QUESTION<|im_end|>
    <|im_start|>assistant
    ANSWER<|im_end|>

An image has one <|image_pad|> per visual token. The answer and the <|im_end|>
after it are supervised; the sequence ends there. As in the official code, it
omits the template's line feed after the last turn.

L text length.
"""

import re
from collections.abc import Sequence

import numpy as np

SYSTEM = "You are a helpful assistant."


# The start of a token that is not text: of turns, images and padding.
_CONTROL = re.compile(
  r"<(?=\|(?:im_start|im_end|endoftext|vision_(?:start|end|pad)|image_pad"
  r"|video_pad)\|>)"
)


def plain(text: str) -> str:
  """Returns a text whose control tokens are ordinary characters.

  A question could otherwise end its own turn or add images. A zero-width space
  behind the "<" keeps it readable.
  """
  return _CONTROL.sub("<\u200b", text)


def chat(question: str, images: Sequence[int] = (1,)) -> str:
  """Returns the prompt text up to the start of the answer.

  Args:
    question: user text; control tokens in it count as text (`plain`).
    images: number of image tokens per image; 1 gives the published template.

  Example:
    >>> chat("Ships?", [2]).splitlines()[3]
    '<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Ships?<|im_end|>'
  """
  pictures = "".join(
    "<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>"
    for count in images
  )
  return (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    f"<|im_start|>user\n{pictures}{plain(question)}<|im_end|>\n"
    "<|im_start|>assistant\n"
  )


def encode_prompt(
  tokenizer, question: str, visual_tokens: Sequence[int]
) -> list[int]:
  """Returns the ids of the prompt.

  Args:
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.
    question: user text.
    visual_tokens: number of visual tokens (M) per image.
  """
  # Encoded with one token per image, then expanded: the ids are the same, and
  # the text to tokenise is short.
  ids = tokenizer.encode(chat(question, [1] * len(visual_tokens)))
  image = tokenizer.special_tokens().image
  counts = iter(visual_tokens)
  return [
    piece
    for token in ids
    for piece in ([token] * next(counts) if token == image else [token])
  ]


def encode_example(
  tokenizer, question: str, answer: str, visual_tokens: Sequence[int]
) -> tuple[list[int], np.ndarray]:
  """Returns (ids, bool[L]); the mask is True on the answer and its <|im_end|>.

  The answer is tokenised separately, so its ids do not depend on the prompt and
  match those that generation produces.

  Example (one image of 2 tokens, text instead of ids):
    ... user \\n <start> <image> <image> <end> How many? <|im_end|> \\n
    <|im_start|> assistant \\n 3 <|im_end|>
                               1     1       <- mask
  """
  prompt = encode_prompt(tokenizer, question, visual_tokens)
  special = tokenizer.special_tokens()
  learned = [*tokenizer.encode(plain(answer)), special.end_of_turn]
  mask = np.zeros(len(prompt) + len(learned), bool)
  mask[len(prompt) :] = True
  return prompt + learned, mask
