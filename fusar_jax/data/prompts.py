"""The chat template of Qwen2.5-VL, written out, and which tokens are learned.

    <|im_start|>system
    You are a helpful assistant.<|im_end|>
    <|im_start|>user
    <|vision_start|><|image_pad|>...<|vision_end|>QUESTION<|im_end|>
    <|im_start|>assistant
    ANSWER<|im_end|>

An image has one <|image_pad|> per visual token. The answer and the <|im_end|>
after it are supervised; the sequence ends there (the template's line feed after
the last turn is not part of it, as in the official code).

L text length.
"""

from collections.abc import Sequence

import numpy as np

SYSTEM = "You are a helpful assistant."


def chat(question: str, images: Sequence[int] = (1,)) -> str:
  """Returns the prompt's text, ready for the answer.

  Args:
    question: text of the user.
    images: image tokens of each image; 1 gives the template as published.

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
    f"<|im_start|>user\n{pictures}{question}<|im_end|>\n"
    "<|im_start|>assistant\n"
  )


def encode_prompt(
  tokenizer, question: str, visual_tokens: Sequence[int]
) -> list[int]:
  """Returns the ids of the prompt.

  Args:
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.
    question: text of the user.
    visual_tokens: number of visual tokens (M) of each image.
  """
  # Encoded with one token per image, then spread: the same ids, and the text to
  # tokenise stays short.
  ids = tokenizer.encode(chat(question, [1] * len(visual_tokens)))
  image = tokenizer.special_tokens().image
  found = ids.count(image)
  if found != len(visual_tokens):
    raise ValueError(
      f"the question itself contains {found - len(visual_tokens)} image"
      " token(s) (<|image_pad|>); images are placed by the template, remove"
      " them from the text."
    )
  counts = iter(visual_tokens)
  return [
    piece
    for token in ids
    for piece in ([token] * next(counts) if token == image else [token])
  ]


def encode_example(
  tokenizer, question: str, answer: str, visual_tokens: Sequence[int]
) -> tuple[list[int], np.ndarray]:
  """Returns (ids, bool[L]), the mask True on the answer and its end.

  The answer is tokenised on its own, so that its ids do not depend on the
  prompt before it: what is learned is what generation will produce.

  Example (one image of 2 tokens, words instead of ids):
    ... user \\n <start> <image> <image> <end> How many? <|im_end|> \\n
    <|im_start|> assistant \\n 3 <|im_end|>
                               1     1       <- mask
  """
  prompt = encode_prompt(tokenizer, question, visual_tokens)
  special = tokenizer.special_tokens()
  learned = [*tokenizer.encode(answer), special.end_of_turn]
  if special.image in learned:
    raise ValueError("the answer contains an image token (<|image_pad|>).")
  mask = np.zeros(len(prompt) + len(learned), bool)
  mask[len(prompt) :] = True
  return prompt + learned, mask
