"""Command-line options for inference.

`predict` and `evaluate --model` share them. The module does not import JAX, so
`--help` is fast.
"""

import argparse

from fusar_jax.data.anchor_conditions import CONDITIONS

# Grammars that can constrain answers.
CONSTRAINTS = ("json",)

MAX_NEW_TOKENS = 2048

# Keyword of `fusar_jax.inference.prediction.predict` -> argparse arguments.
OPTIONS = {
  "adapter": {"help": "PEFT or official adapter to put on it"},
  "legacy_sigma": {
    "type": float,
    "help": "for official adapters without tlm_config.json: 2",
  },
  "use_tlm": {
    "flag": "--no-tlm",
    "action": "store_false",
    "help": "base and LoRA only: no anchors, as the official infer_no_aef",
  },
  "image_size": {
    "type": int,
    "metavar": "PIXELS",
    "help": "side to which images are resized, a multiple of 28, for a model"
    " whose files record none (officially 504)",
  },
  "anchors": {
    "choices": CONDITIONS,
    "help": "a control of the anchors (default: as the run was trained)",
  },
  "constrain": {
    "choices": CONSTRAINTS,
    "help": "json: answers to detection questions are lists of boxes in whole"
    " pixels of the image, or None, and nothing else; other tasks' answers"
    " stay free",
  },
  "choices": {
    "action": "store_true",
    "help": "answer classification questions by the likeliest of the names that"
    ' they offer ("Choose from: ..."); log-likelihoods go to "scores"',
  },
  "batch_size": {
    "type": int,
    "default": 16,
    "help": "rows answered at once (default: %(default)s)",
  },
  "max_new_tokens": {
    "type": int,
    "default": MAX_NEW_TOKENS,
    "help": 'cap on an answer; rows that it cuts have "truncated": true'
    " (default: %(default)s)",
  },
  "repetition_penalty": {
    "type": float,
    "help": "above 1 makes tokens of prompt and answer less likely, 1: off"
    " (default: that of the model's generation_config.json)",
  },
  "limit": {"type": int, "help": "only the first so many rows"},
}


def add_options(parser: argparse._ActionsContainer) -> None:
  """Adds OPTIONS to a parser, or to a group of one."""
  for name, about in OPTIONS.items():
    about = {key: value for key, value in about.items() if key != "flag"}
    parser.add_argument(flag(name), dest=name, **about)


def flag(name: str) -> str:
  """Returns the command-line flag of an option: "--batch-size"."""
  return OPTIONS[name].get("flag", f"--{name.replace('_', '-')}")
