"""Options of batch prediction, in Python and on the command line.

`predict` and `evaluate --model` share them. The module does not import JAX, so
`--help` is fast.
"""

import argparse
import dataclasses
import os

from fusar_jax.data.anchor_conditions import CONDITIONS

# Grammars that can constrain answers.
CONSTRAINTS = ("json",)
# Dtypes of activations.
DTYPES = ("float32", "bfloat16")
# Formats of the layers' kernels, as in `config.dtype.frozen`.
QUANTIZATIONS = ("int8", "nf4")

MAX_NEW_TOKENS = 2048


@dataclasses.dataclass(frozen=True)
class PredictionOptions:
  """What to answer, with which model, and how.

  Attributes:
    adapter, legacy_sigma, use_tlm, image_size, mesh, dtype, quantize: of the
      model, see `fusar_jax.load`.
    anchors: condition of the anchors, see `data.anchor_conditions`; None: the
      condition of the training run. A model without TLM takes no anchors.
    batch_size: rows per batch.
    max_new_tokens: maximum tokens of an answer. The "truncated" field of a
      generated answer is true if the answer reached this limit.
    repetition_penalty: above 0, 1 disables it; None: the value of the model's
      `generation_config.json`.
    limit: answers only the first `limit` rows.
    constrain: "json": an answer to a detection question is a well-formed list
      of boxes within the image, or "None", and ends within `max_new_tokens`.
      Answers of other tasks are unconstrained.
    choices: answers a question with the likeliest of the answers that it
      offers: the names of a classification question, the letters of options,
      or yes and no; "scores" in the row lists all log-likelihoods. Answers to
      other questions are generated.

  Raises:
    ValueError: a number below 1, an unknown constraint, or `legacy_sigma`
      without `adapter`.
  """

  adapter: str | os.PathLike | None = None
  legacy_sigma: float | None = None
  use_tlm: bool = True
  image_size: int | None = None
  mesh: str | None = "auto"
  dtype: str | None = None
  quantize: str | None = None
  anchors: str | None = None
  batch_size: int = 16
  max_new_tokens: int = MAX_NEW_TOKENS
  repetition_penalty: float | None = None
  limit: int | None = None
  constrain: str | None = None
  choices: bool = False

  def __post_init__(self):
    for name in ("batch_size", "max_new_tokens", "limit"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(
          f"{name.replace('_', ' ')} {value}: expected at least 1."
        )
    if self.constrain not in (None, *CONSTRAINTS):
      raise ValueError(
        f"constraint {self.constrain!r}; known: {', '.join(CONSTRAINTS)}."
      )
    if self.legacy_sigma is not None and self.adapter is None:
      raise ValueError("--legacy-sigma requires --adapter.")

  @classmethod
  def of_arguments(cls, args: argparse.Namespace) -> "PredictionOptions":
    """Returns the options that `add_options` added to a command line."""
    return cls(**{name: getattr(args, name) for name in OPTIONS})

  def model_arguments(self) -> dict:
    """Returns the keyword arguments of `fusar_jax.load`."""
    names = (
      "adapter",
      "legacy_sigma",
      "use_tlm",
      "image_size",
      "mesh",
      "dtype",
      "quantize",
    )
    return {name: getattr(self, name) for name in names}

  def resume_settings(self) -> dict:
    """Returns what a resumed run must have in common, except file hashes.

    The defaults of options that older files lack are None.
    """
    return {
      "legacy_sigma": self.legacy_sigma,
      "use_tlm": None if self.use_tlm else False,
      "image_size": self.image_size,
      "dtype": self.dtype,
      "quantize": self.quantize,
      "batch_size": self.batch_size,
      "max_new_tokens": self.max_new_tokens,
      "repetition_penalty": self.repetition_penalty,
      "limit": self.limit,
      "constrain": self.constrain,
      "choices": self.choices or None,
    }


# Field of PredictionOptions -> argparse arguments.
OPTIONS = {
  "adapter": {"help": "PEFT or official adapter of the model"},
  "legacy_sigma": {
    "type": float,
    "help": "for official adapters without tlm_config.json: 2",
  },
  "use_tlm": {
    "flag": "--no-tlm",
    "action": "store_false",
    "help": "load base and LoRA only, without anchors, as the official"
    " infer_no_aef",
  },
  "image_size": {
    "type": int,
    "metavar": "PIXELS",
    "help": "side to which images are resized, a multiple of 28, for a model"
    " whose files record no size (official code: 504)",
  },
  "mesh": {
    "default": "auto",
    "metavar": "D,F,T",
    "help": "devices for rows (D), weights (F), and heads and widths (T), such"
    " as 2,1,4; one may be -1 (default: auto, weights are split where they do"
    " not fit one device)",
  },
  "dtype": {
    "choices": DTYPES,
    "help": "dtype of activations (default: float32 on a CPU, elsewhere that"
    " of the weights)",
  },
  "quantize": {
    "choices": QUANTIZATIONS,
    "help": "hold the kernels of the layers in 8 or 4 bits, as"
    " config.dtype.frozen of train; TLM, LoRA, embedding and head keep their"
    " dtype",
  },
  "anchors": {
    "choices": CONDITIONS,
    "help": "control condition of the anchors (default: that of the training"
    " run)",
  },
  "constrain": {
    "choices": CONSTRAINTS,
    "help": "json: restrict answers to detection questions to a list of boxes"
    " in integer pixels of the image, or None; answers of other tasks are"
    " unconstrained",
  },
  "choices": {
    "action": "store_true",
    "help": "answer questions with the likeliest of the answers that they"
    ' offer (classification: "Choose from: ..."; vqa: letters of options, yes'
    ' or no); log-likelihoods go to "scores"',
  },
  "batch_size": {
    "type": int,
    "default": 16,
    "help": "rows per batch (default: %(default)s)",
  },
  "max_new_tokens": {
    "type": int,
    "default": MAX_NEW_TOKENS,
    "help": "maximum tokens of an answer; truncated answers have"
    ' "truncated": true (default: %(default)s)',
  },
  "repetition_penalty": {
    "type": float,
    "help": "above 1 makes tokens of prompt and answer less likely, 1: off"
    " (default: that of the model's generation_config.json)",
  },
  "limit": {"type": int, "help": "answer only the first LIMIT rows"},
}


def add_options(parser: argparse._ActionsContainer) -> None:
  """Adds OPTIONS to a parser, or to a group of one."""
  for name, about in OPTIONS.items():
    about = {key: value for key, value in about.items() if key != "flag"}
    parser.add_argument(flag(name), dest=name, **about)


def flag(name: str) -> str:
  """Returns the command-line flag of an option: "--batch-size"."""
  return OPTIONS[name].get("flag", f"--{name.replace('_', '-')}")
