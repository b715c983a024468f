"""A server that runs for long holds no more memory than at first.

FUSAR_SOAK_MINUTES (1) is the time after the warm-up:

  FUSAR_SOAK_MINUTES=60 python -m pytest -s -m slow tests/serving/test_soak.py
"""

import itertools
import os
import threading
import time
from pathlib import Path

import httpx
import pytest

from .conftest import MINUTES, picture, serve_alone, user

SOAK = float(os.environ.get("FUSAR_SOAK_MINUTES", "1"))
CLIENTS = 4
# Requests before memory counts: until the cache is full and all is compiled.
WARM = 160
CACHE_MIB = 8
# RSS of the last tenth of the time against the first. Freed memory goes back to
# the allocator, not always to the system.
GROWTH = 1.05


def _request(http, seed: int, number: int) -> None:
  """Sends one of the requests that a server meets."""
  image = picture(1000 * seed + number, (90 + seed, 120))
  ask = "/v1/chat/completions"
  body = {"messages": [user("Describe the image.", image)], "max_tokens": 24}
  match number % 6:
    case 0:
      done = http.post(ask, json=body | {"temperature": 1.0, "seed": number})
    case 1:
      done = http.post(ask, json=body | {"stream": True})
    case 2:
      # Leaves in the middle of an answer.
      with http.stream("POST", ask, json=body | {"stream": True}) as done:
        next(done.iter_lines())
    case 3:
      done = http.post(ask, json=body | {"unknown": 1})
      assert done.status_code == 422
      return
    case 4:
      file = http.post("/v1/files", files={"file": ("a.bin", bytes(2**20))})
      done = http.delete(f"/v1/files/{file.json()['id']}")
    case _:
      question = user("How many ships are in the image?", picture(seed))
      done = http.post(ask, json=body | {"messages": [question]})
  assert done.status_code == 200, done.text


def _resident(pid: int) -> int:
  """Bytes of memory that a process holds."""
  lines = Path(f"/proc/{pid}/status").read_text().splitlines()
  [line] = [line for line in lines if line.startswith("VmRSS:")]
  return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.timeout(60 * SOAK + 1200)
def test_memory_is_flat(monkeypatch):
  # One arena: with one a thread, RSS counts what they keep for later, too.
  monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
  stop, failed = threading.Event(), []
  counts: list[int] = []  # Of requests, one number each.

  def client(seed, url):
    try:
      with httpx.Client(base_url=url, timeout=MINUTES, trust_env=False) as http:
        for number in itertools.count():
          if stop.is_set():
            return
          _request(http, seed, number)
          counts.append(number)
    except BaseException as error:
      failed.append(error)
      raise

  options = (
    "--slots=8",
    "--max-new-tokens=64",
    f"--max-cache-mib={CACHE_MIB}",
  )
  with serve_alone(*options) as (process, url):
    threads = [
      threading.Thread(target=client, args=(seed, url))
      for seed in range(CLIENTS)
    ]
    for thread in threads:
      thread.start()
    try:
      while len(counts) < WARM and not failed:
        time.sleep(1)
      curve = _watch(process.pid, SOAK * 60, counts, failed)
    finally:
      stop.set()
      for thread in threads:
        thread.join()
  assert not failed
  for seconds, requests, resident in curve[:: max(len(curve) // 10, 1)]:
    print(
      f"{seconds:6.0f} s {requests:7d} requests {resident / 2**20:7.1f} MiB"
    )
  tenth = max(len(curve) // 10, 1)
  first, last = (
    sum(resident for *_, resident in part) / tenth
    for part in (curve[:tenth], curve[-tenth:])
  )
  assert last < GROWTH * first, curve


def _watch(pid, seconds, counts, failed) -> list[tuple[float, int, int]]:
  """Returns (seconds, requests, bytes), forty times."""
  begin, curve = time.monotonic(), []
  while not failed and (now := time.monotonic() - begin) < seconds:
    curve.append((now, len(counts), _resident(pid)))
    time.sleep(seconds / 40)
  return curve
