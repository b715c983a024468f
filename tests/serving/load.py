"""Measures a server under load: many clients against one, in alternation.

COMMAND:
  python tests/serving/load.py --requests 1000 --clients 100

Starts the server as a process of its own. Blocks of one client, which waits for
each answer, lie between blocks of all clients: both see the same machine. Every
answer is compared with that of `ask`.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from conftest import NAME, picture, serve_alone, user

from fusar_jax.inference.load import load
from fusar_jax.tasks import counting, detection

QUESTIONS = (
  counting.question("ship"),
  detection.question("ship"),
  "Describe the image.",
)
TOKENS = 64
BLOCKS = 5


class Answer(NamedTuple):
  """What a client got, and when: seconds from its request."""

  text: str
  first: float
  last: float


def image(number: int) -> np.ndarray:
  """uint8[h, w, 3]: three questions are asked about each."""
  return picture(number // len(QUESTIONS))


def question(number: int) -> str:
  """Returns the text of a request."""
  return QUESTIONS[number % len(QUESTIONS)]


async def ask(address: tuple[str, int], number: int) -> Answer:
  """Sends one request as a stream; reads it without a client's own costs."""
  message = user(question(number), image(number))
  body = json.dumps(
    {"messages": [message], "max_tokens": TOKENS, "stream": True}
  ).encode()
  head = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Connection: close\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(body)}\r\n\r\n"
  )
  begin = time.monotonic()
  reader, writer = await asyncio.open_connection(*address)
  writer.write(head.encode() + body)
  text, first = "", None
  async for line in reader:
    if line.startswith(b"HTTP/1.1") and b" 200 " not in line:
      raise RuntimeError(line.decode())
    if not line.startswith(b"data: {"):
      continue
    for choice in json.loads(line[6:]).get("choices", ()):
      piece = choice["delta"].get("content") or ""
      if piece and first is None:
        first = time.monotonic()
      text += piece
  writer.close()
  end = time.monotonic()
  return Answer(text, (first or end) - begin, end - begin)


async def block(
  address: tuple[str, int], numbers: Sequence[int], clients: int
) -> tuple[float, dict[int, Answer]]:
  """Returns seconds and number -> answer; each client waits for its own."""
  waiting, answers = iter(numbers), {}

  async def client() -> None:
    for number in waiting:
      answers[number] = await ask(address, number)

  begin = time.monotonic()
  await asyncio.gather(*(client() for _ in range(clients)))
  return time.monotonic() - begin, answers


def measure(requests: int, clients: int, slots: int) -> dict:
  """Returns the numbers of the table.

  Raises:
    AssertionError: an answer was lost, or is not that of `ask`.
  """
  parts = np.array_split(np.arange(requests), BLOCKS)
  alone, together = [], []
  with serve_alone(f"--slots={slots}", f"--max-new-tokens={TOKENS}") as (
    _,
    url,
  ):
    host, _, port = url.removeprefix("http://").partition(":")
    address = host, int(port)
    # Prompts of each length, so that no block compiles.
    asyncio.run(block(address, range(2 * requests, 2 * requests + 6), 1))
    for part in parts:
      # Not the images of the block itself, which would be encoded already.
      single = requests + part[: max(len(part) // 10, 3)]
      alone.append(asyncio.run(block(address, single.tolist(), 1)))
      together.append(asyncio.run(block(address, part.tolist(), clients)))
  assistant, unlike = load(NAME), []
  answers = {n: a for _, block in together for n, a in block.items()}
  assert sorted(answers) == list(range(requests))
  begin = time.monotonic()
  for number, answer in answers.items():
    expected = assistant.ask(
      image(number), question(number), max_new_tokens=TOKENS
    )
    if answer.text != expected:
      unlike.append((number, answer.text, expected))
  by_ask = requests / (time.monotonic() - begin)
  assert not unlike, unlike[:3]

  def rate(blocks):
    return sum(len(b) for _, b in blocks) / sum(
      seconds for seconds, _ in blocks
    )

  def first(blocks, q):
    return float(
      np.quantile([a.first for _, b in blocks for a in b.values()], q)
    )

  return {
    "requests": requests,
    "alone": rate(alone),
    "together": rate(together),
    "ratio": rate(together) / rate(alone),
    "ask": by_ask,
    "first": {q: (first(alone, q), first(together, q)) for q in (0.5, 0.95)},
  }


def main() -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--requests", type=int, default=1000)
  parser.add_argument("--clients", type=int, default=100)
  parser.add_argument("--slots", type=int, default=16)
  args = parser.parse_args()
  found = measure(args.requests, args.clients, args.slots)
  print(f"requests {found['requests']}, each answer that of ask")
  print(f"one client     {found['alone']:8.2f} requests/s")
  print(f"{args.clients:3} clients    {found['together']:8.2f} requests/s")
  print(f"ratio          {found['ratio']:8.2f}")
  print(f"ask            {found['ask']:8.2f} requests/s (not in alternation)")
  for q, (alone, together) in found["first"].items():
    print(f"first token, p{q:.0%} {alone:8.3f} s alone, {together:8.3f} s")
  return 0


if __name__ == "__main__":
  sys.exit(main())
