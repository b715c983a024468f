"""Decoding defaults of a checkpoint, from `generation_config.json`.

Fields and defaults are those of transformers' `GenerationConfig`. Unknown
fields, and unimplemented fields that change answers, are logged by name. Fields
about caches, speed and output format do not change answers and are ignored.
"""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.io.strict_json import read_object

FILE = "generation_config.json"

# Unimplemented fields and the values without effect on answers; None never has
# an effect.
_NEUTRAL = {
  "assistant_early_exit": (),
  "bad_words_ids": ([],),
  "begin_suppress_tokens": ([],),
  "constraints": ([],),
  "dola_layers": (),
  "encoder_no_repeat_ngram_size": (0,),
  "encoder_repetition_penalty": (1.0,),
  "epsilon_cutoff": (0.0,),
  "eta_cutoff": (0.0,),
  "exponential_decay_length_penalty": (),
  "force_words_ids": ([],),
  "forced_bos_token_id": (),
  "forced_eos_token_id": (),
  "guidance_scale": (1.0,),
  "max_time": (),
  "min_length": (0,),
  "min_new_tokens": (0,),
  "no_repeat_ngram_size": (0,),
  "num_beam_groups": (1,),
  "num_beams": (1,),
  "num_return_sequences": (1,),
  "penalty_alpha": (0.0,),
  "prompt_lookup_num_tokens": (),
  "sequence_bias": ({}, []),
  "speculation_type": (),
  "stop_strings": ([],),
  "suppress_tokens": ([],),
  "token_healing": (False,),
  "top_h": (),
  "typical_p": (1.0,),
  "use_mtp": (False,),
  "watermarking_config": (),
}
# The caller decides: greedy unless a temperature is given.
_CALLERS = ("do_sample",)
_LIMITS = ("max_length", "max_new_tokens")
# Of caches, speed, the form of the output, beam search (whose switch is
# num_beams), speculation (whose switch is an assistant), or of no consequence
# to which token is chosen.
_WITHOUT_EFFECT = frozenset(
  (
    "_commit_hash",
    "_from_model_config",
    "assistant_confidence_threshold",
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "bos_token_id",
    "cache_config",
    "cache_implementation",
    "compile_config",
    "continuous_batching_config",
    "decoder_start_token_id",
    "disable_compile",
    "diversity_penalty",
    "early_stopping",
    "is_assistant",
    "length_penalty",
    "low_memory",
    "max_cache_len",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "output_attentions",
    "output_hidden_states",
    "output_logits",
    "output_scores",
    "pad_token_id",
    "prefill_chunk_size",
    "remove_invalid_values",
    "renormalize_logits",
    "return_dict_in_generate",
    "target_lookbehind",
    "transformers_version",
    "use_cache",
  )
)


@dataclasses.dataclass(frozen=True)
class GenerationDefaults:
  """Decoding defaults of a checkpoint; missing fields as in transformers.

  Attributes:
    eos_token_ids: ids that end an answer; empty if the file lists none.
    repetition_penalty: above 1 makes tokens of prompt and answer less likely.
      Applied in greedy decoding too.
    top_k: samples are drawn from the k likeliest tokens; 0: from all.
    top_p: samples are drawn from the fewest tokens that have this probability
      together.
    min_p: samples are drawn from tokens of at least this share of the
      probability of the likeliest, or None.
  """

  eos_token_ids: tuple[int, ...] = ()
  repetition_penalty: float = 1.0
  top_k: int = 50
  top_p: float = 1.0
  min_p: float | None = None

  @classmethod
  def read(cls, folder: str | Path) -> "GenerationDefaults":
    """Reads the file of a folder, or returns the defaults without a file.

    Raises:
      ValueError: not JSON, or a value out of its range; names file and field.
    """
    path = Path(folder) / FILE
    if not path.is_file():
      return cls()
    return cls.from_json(read_object(path), where=str(path))

  @classmethod
  def from_json(
    cls, fields: Mapping[str, Any], *, where: str = FILE
  ) -> "GenerationDefaults":
    """Reads the content of the file.

    Fields that are not implemented, and unknown ones, are logged as warnings.
    `do_sample`, `temperature` and the limits of an answer's length are the
    caller's to choose; a limit in the file is logged.

    Args:
      fields: of the file.
      where: names it in messages.

    Raises:
      ValueError: values out of their range, all of them.
    """
    checked, problems = {}, []
    for name, (read, expected) in _READERS.items():
      value = fields.get(name)
      if value is None:
        continue
      try:
        checked[name] = read(value)
      except (TypeError, ValueError):
        problems.append(f"{name} {json.dumps(value)}: expected {expected}")
    if problems:
      raise ValueError(f"{where}: {'; '.join(problems)}.")
    for message in _unused(fields):
      logging.getLogger(__name__).warning("%s: %s", where, message)
    checked.pop("temperature", None)
    if "eos_token_id" in checked:
      checked["eos_token_ids"] = checked.pop("eos_token_id")
    return cls(**checked)


def _unused(fields: Mapping[str, Any]) -> list[str]:
  """Returns a message for each kind of unused field."""
  given = {name: v for name, v in fields.items() if v is not None}
  unsupported = [
    f"{name} {json.dumps(value)}"
    for name, value in sorted(given.items())
    if name in _NEUTRAL and value not in _NEUTRAL[name]
  ]
  limits = [
    f"{name} {json.dumps(given[name])}" for name in _LIMITS if name in given
  ]
  known = {*_NEUTRAL, *_WITHOUT_EFFECT, *_READERS, *_CALLERS, *_LIMITS}
  unknown = sorted(set(given) - known)
  messages = []
  if unsupported:
    messages.append(
      f"not supported and ignored: {', '.join(unsupported)}. Answers can"
      " differ from those of transformers"
    )
  if limits:
    messages.append(
      f"{', '.join(limits)} is not used: the limit of an answer is"
      " max_new_tokens of the call (--max-new-tokens)"
    )
  if unknown:
    messages.append(f"unknown fields, ignored: {', '.join(unknown)}")
  return messages


def _integer(value, least: int) -> int:
  if isinstance(value, bool) or int(value) != value or value < least:
    raise ValueError
  return int(value)


def _ids(value) -> tuple[int, ...]:
  ids = value if isinstance(value, list) else [value]
  return tuple(dict.fromkeys(_integer(token, 0) for token in ids))


def _number(value, least: float, most: float = math.inf) -> float:
  if isinstance(value, bool) or not least <= float(value) <= most:
    raise ValueError
  return float(value)


def _positive(value) -> float:
  if not _number(value, 0) or math.isinf(value):
    raise ValueError
  return float(value)


_SHARE = "a number from 0 to 1"
_READERS = {
  "eos_token_id": (_ids, "a token id or a list of them"),
  "repetition_penalty": (_positive, "a number above 0"),
  "temperature": (lambda v: _number(v, 0), "a number, 0 or above"),
  "top_k": (lambda v: _integer(v, 0), "an integer, 0 or above"),
  "top_p": (lambda v: _number(v, 0, 1), _SHARE),
  "min_p": (lambda v: _number(v, 0, 1), _SHARE),
}
