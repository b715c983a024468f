"""Measures what a further question about an image saves: time to its answer.

COMMAND:
  python tests/serving/second_question.py --rounds 30

Answers are one token long. In each round an image is asked about for the first
time, with other anchors (its visual tokens are kept) and again (its prefix is
kept): all three see the same machine. `bench` has random weights.
"""

import argparse
import queue
import sys
import time

import jax
import numpy as np

from fusar_jax.config import preset
from fusar_jax.data.examples import (
  Example,
  count_visual_tokens,
  example_from_ids,
  model_size,
)
from fusar_jax.geo.anchors import Anchors
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.continuous import RowOptions
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.serving.engine import Engine, Job
from fusar_jax.serving.limits import Limits

CASES = ("first question", "other anchors", "further question")
WORDS = 24


def prompts(config, rng) -> list[Example]:
  """Returns a prompt of each case."""
  size = model_size((504, 504), config)
  image = rng.integers(0, 255, (*size, 3), np.uint8)
  visual = [config.tokens.image] * count_visual_tokens(size, config)
  anchors = []
  for _ in range(2):
    features = rng.normal(size=(81, 64)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    anchors.append(Anchors(features, rng.uniform(size=(81, 2))))
  return [
    example_from_ids(
      [9, 12, *visual, *rng.integers(10, 60, WORDS).tolist()],
      [image],
      [anchors[which]],
      config,
    )
    for which in (0, 1, 0)
  ]


def seconds(engine: Engine, prompt: Example) -> float:
  """Returns the time from a job's submission to its token."""
  events = queue.Queue()
  key = prompt.patches[0].tobytes()
  begin = time.monotonic()
  engine.submit(Job(prompt, RowOptions(max_new_tokens=1), events.put, key))
  event = events.get()
  assert event.last
  assert event.error is None
  return time.monotonic() - begin


def main() -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--rounds", type=int, default=30)
  parser.add_argument("--preset", default="bench")
  args = parser.parse_args()
  config = preset(args.preset)
  params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
  rng = np.random.default_rng(0)
  assistant = Assistant(config, params)
  with Engine(assistant, 4, Limits(new_tokens=64)) as engine:
    found = [
      [seconds(engine, prompt) for prompt in prompts(config, rng)]
      for _ in range(1 + args.rounds)
    ]
  for case, median in zip(CASES, np.median(found[1:], axis=0), strict=True):
    print(f"{case:18} {1000 * median:8.1f} ms")
  return 0


if __name__ == "__main__":
  sys.exit(main())
