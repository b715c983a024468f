"""What `bench` measures: works of both sides, and memory options.

Imports no JAX, so `--help` is fast.
"""

import dataclasses

# Samples of the workload, and of a train step.
SAMPLES = 16
BATCH = 4

# Memory option -> fields of configs/stage2.py.
OPTIONS = {
  "none": {},
  "remat dots": {"remat": "dots"},
  "remat full": {"remat": "full"},
  "head_chunk 32": {"head_chunk": 32},
  "dtype.frozen bfloat16": {"dtype.frozen": "bfloat16"},
  "dtype.frozen int8": {"dtype.frozen": "int8"},
  "dtype.frozen nf4": {"dtype.frozen": "nf4"},
  "accumulation 4": {"accumulation": 4},
  "all of them": {
    "remat": "full",
    "head_chunk": 32,
    "dtype.frozen": "int8",
    "accumulation": 4,
  },
}


def option_key(option: str) -> str:
  """Returns the --only name of a memory option: remat-dots for "remat dots"."""
  return option.replace(" ", "-")


@dataclasses.dataclass(frozen=True)
class Work:
  """One measured operation.

  Attributes:
    key: its name in commands and files.
    name: its name in the table.
    ours, theirs: requests to the two sides.
    units: samples or tokens per step of each side.
    unit: name of the units.
    decodes: whether a request runs `tokens` - 1 steps after the prompt. The
      time of the prompt is measured separately (a request of one token) and
      subtracted.
  """

  key: str
  name: str
  ours: dict
  theirs: dict
  units: tuple[int, int]
  unit: str
  decodes: bool = False


def works(tokens: int) -> list[Work]:
  """Returns all works: training, the prompt, decoding, reading images."""
  train = [
    Work(
      f"train-stage{stage}{key}",
      f"train, stage {stage}{name}",
      {"do": "train", "stage": stage, "first_epoch": first},
      {"do": "train", "stage": stage, "rows": rows},
      (BATCH, BATCH),
      "samples/s",
    )
    for stage in (1, 2)
    for key, name, first, rows in (
      ("", "", False, 1),
      ("-first", ", first epoch", True, 1),
      ("-batched", ", reference in batches", False, BATCH),
    )
  ]
  one = {"do": "decode", "count": 1, "tokens": 1}
  alone = one | {"tokens": tokens}
  many = alone | {"count": SAMPLES}
  rate = "tokens/s"
  return [
    *train,
    Work("prompt", "prompt of one", one, one, (1, 1), "samples/s"),
    Work("decode-one", "decode one", alone, alone, (1, 1), rate, True),
    Work(
      "decode-16",
      "decode 16 at once",
      many,
      many,
      (SAMPLES, SAMPLES),
      rate,
      True,
    ),
    Work(
      "prepare",
      "read and resize images",
      {"do": "prepare"},
      {"do": "prepare"},
      (SAMPLES, SAMPLES),
      "images/s",
    ),
  ]


KEYS = tuple(work.key for work in works(2))
