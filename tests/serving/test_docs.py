"""The commands of docs/serving.md, against a server."""

import json
import re
import subprocess
from pathlib import Path

from PIL import Image

from .conftest import NAME, QUESTIONS, picture

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def test_the_curl_lines_work(server, assistant, tmp_path):
  blocks = re.findall(
    r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S
  )
  script = "".join(blocks)
  Image.fromarray(picture(1)).save(tmp_path / "ship.png")
  script = script.replace("http://127.0.0.1:8000", server.url)
  script = script.replace("curl ", "curl --silent --noproxy '*' -w '\\n' ")
  done = subprocess.run(
    ["bash", "-euo", "pipefail", "-c", script],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  answer, models, health, rest = done.stdout.split("\n", 3)
  metrics, again, deleted = rest.rstrip("\n").rsplit("\n", 2)
  expected = assistant.ask(picture(1), QUESTIONS[0], max_new_tokens=64)
  for text in (answer, again):
    assert json.loads(text)["choices"][0]["message"]["content"] == expected
  assert json.loads(deleted)["deleted"]
  assert json.loads(models)["data"][0]["id"] == NAME
  assert json.loads(health)["status"] == "ok"
  assert metrics.startswith("# HELP fusar_requests_waiting")
