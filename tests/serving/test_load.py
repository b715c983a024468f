"""Many clients at once, and a server as a process of its own."""

import json
import signal
import threading

import httpx
import pytest

from .conftest import MINUTES, NAME, picture, serve_alone, user

CLIENTS, EACH = 20, 5


@pytest.mark.slow
def test_no_answer_is_lost_or_mixed_up(serving, assistant):
  """100 requests of 20 clients, half of them streams: each gets the answer of
  `ask` for its image and question, greedy or sampled."""
  asked = [
    (
      picture(i),
      ("Describe the image.", "How many ships are in the image?")[i % 2],
      {
        "max_tokens": (4, 17, 40)[i % 3],
        "temperature": (0, 0, 0, 1.2)[i % 4],
        "seed": i,
      },
    )
    for i in range(CLIENTS * EACH)
  ]
  found = {}

  def client(number, url):
    with httpx.Client(base_url=url, timeout=MINUTES, trust_env=False) as http:
      for i in range(number * EACH, (number + 1) * EACH):
        image, question, options = asked[i]
        body = {"messages": [user(question, image)], **options}
        found[i] = _streamed(http, body) if i % 2 else _whole(http, body)

  with serving(slots=8) as running:
    threads = [
      threading.Thread(target=client, args=(number, running.url))
      for number in range(CLIENTS)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert running.engine.load == (0, 0)
  assert len(found) == len(asked)
  for i, (image, question, options) in enumerate(asked):
    expected = assistant.ask(
      image,
      question,
      max_new_tokens=options["max_tokens"],
      temperature=options["temperature"],
      seed=options["seed"],
    )
    assert found[i] == expected, i


def _whole(http, body) -> str:
  done = http.post("/v1/chat/completions", json=body)
  assert done.status_code == 200, done.text
  return done.json()["choices"][0]["message"]["content"]


def _streamed(http, body) -> str:
  text = ""
  with http.stream(
    "POST", "/v1/chat/completions", json=body | {"stream": True}
  ) as done:
    for line in done.iter_lines():
      if line.startswith("data: {"):
        for choice in json.loads(line[6:])["choices"]:
          text += choice["delta"].get("content") or ""
  return text


@pytest.mark.slow
def test_the_command_serves_until_sigterm():
  with serve_alone("--slots=2", "--max-new-tokens=16") as (process, url):
    body = {"messages": [user("How many ships?", picture(0))]}
    done = httpx.post(
      f"{url}/v1/chat/completions", json=body, timeout=MINUTES, trust_env=False
    )
    assert done.status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    page, *rest = process.stdout.read().splitlines()
    assert page == f"the page is {url}/"
    assert rest == ["all requests are answered"]
    assert process.wait() == 0


def test_an_open_address_needs_a_token(run_module):
  done = run_module("fusar_jax.serve", "--model", NAME, "--host", "0.0.0.0")
  assert done.returncode == 1
  assert "error: --host 0.0.0.0 is reached by others" in done.stderr
