"""Supervised tokens of a conversation, and rejected content."""

import numpy as np
import pytest

from fusar_jax.data import prompts


def test_the_template_is_written_out():
  assert prompts.chat("Ships?") == (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Ships?"
    "<|im_end|>\n<|im_start|>assistant\n"
  )


def test_answer_and_its_end_are_learned(tokenizer):
  ids, mask = prompts.encode_example(tokenizer, "Ships?", "seven 7", [5])
  learned = np.array(ids)[mask].tolist()
  assert tokenizer.decode(learned, skip_special=False) == "seven 7<|im_end|>"
  assert mask.tolist() == sorted(mask.tolist())
  assert ids.count(6) == 5
  spread = tokenizer.encode(prompts.chat("Ships?", [5]))
  assert np.array(ids)[~mask].tolist() == spread


def test_image_tokens_in_the_text_are_refused(tokenizer):
  with pytest.raises(ValueError, match="1 image token"):
    prompts.encode_prompt(tokenizer, "<|image_pad|>?", [5])
  with pytest.raises(ValueError, match="answer contains an image token"):
    prompts.encode_example(tokenizer, "?", "<|image_pad|>", [5])
