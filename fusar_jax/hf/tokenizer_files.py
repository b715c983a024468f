"""Exports tokenizer files that make transformers encode identically.

  tokenizer.json         converted from SentencePiece if need be
  tokenizer_config.json  its class, end and padding tokens
  chat_template.jinja    the prompt of `data.prompts`

Together with `preprocessor_config.json` (see `config_json`), AutoProcessor
returns the same `input_ids`, without a network and without remote code.
"""

import shutil
from pathlib import Path

from fusar_jax.data import tokenizer_json
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.tokenizer import TEXT_MARKS
from fusar_jax.hf.config_json import PROCESSOR, write_json
from fusar_jax.io.strict_json import read_object

_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_SENTENCEPIECE = "tokenizer.model"
_QWEN = "vocab.json"  # with merges.txt; tokenizer.json holds both
_TEMPLATE = "chat_template.jinja"

# Copied unchanged if transformers can already read the tokenizer.
_COPIED = (
  _TOKENIZER,
  "special_tokens_map.json",
  "added_tokens.json",
  _QWEN,
  "merges.txt",
)

# A conversation without system turn begins with the published one; a text
# that is no list of parts stands as it is.
CHAT_TEMPLATE = """\
{%- if not messages or messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nSYSTEM<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' or 'video' in part -%}
{{- raise_exception('this model takes images, no videos.') -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
""".replace("SYSTEM", SYSTEM)


def has_tokenizer(folder: Path) -> bool:
  names = (_TOKENIZER, _SENTENCEPIECE, _QWEN)
  return any((Path(folder) / name).is_file() for name in names)


def write_tokenizer(folder: Path, tokenizer: str | Path | None) -> None:
  """Writes the tokenizer's files into a folder that exists.

  Args:
    folder: to write to.
    tokenizer: folder of the tokenizer; None: the model has none, and nothing
      is written.

  Raises:
    FileNotFoundError: no tokenizer in that folder.
    ValueError: a file there is malformed, or a SentencePiece model that
      `tokenizer.json` cannot express.
  """
  if tokenizer is None:
    return
  folder, source = Path(folder), Path(tokenizer)
  if not has_tokenizer(source):
    raise FileNotFoundError(
      f"{source}: no tokenizer here ({_TOKENIZER} or {_SENTENCEPIECE})."
    )
  settings = {}
  there = [name for name in _COPIED if (source / name).is_file()]
  if _TOKENIZER in there or _QWEN in there:
    for name in there:
      shutil.copyfile(source / name, folder / name)
    if _TOKENIZER not in there:
      settings["tokenizer_class"] = "Qwen2Tokenizer"
    if (source / _SETTINGS).is_file():
      settings |= read_object(source / _SETTINGS)
  else:
    made = tokenizer_json.convert_sentencepiece(
      source / _SENTENCEPIECE, TEXT_MARKS
    )
    text = tokenizer_json.to_text(made)
    (folder / _TOKENIZER).write_text(text, encoding="utf-8")
  write_json(folder / _SETTINGS, _tokenizer_settings(settings))
  (folder / _TEMPLATE).write_text(CHAT_TEMPLATE, encoding="utf-8")


def _tokenizer_settings(settings: dict) -> dict:
  """Returns the source's `tokenizer_config.json` with missing fields added.

  Drops its chat template, which would override `chat_template.jinja`, the
  template that the model was trained with.
  """
  settings = {k: v for k, v in settings.items() if k != "chat_template"}
  return {
    # Reads tokenizer.json unchanged, in transformers 4 and 5.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "clean_up_tokenization_spaces": False,
    **settings,
    "processor_class": PROCESSOR,
  }
