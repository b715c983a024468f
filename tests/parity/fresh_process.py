"""Runs code of the documentation in a fresh process without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

DOCS = Path(__file__).resolve().parents[2] / "docs" / "export.md"

OFFLINE = """
import importlib.util
import socket
import sys
import numpy as np

def no_network(*args):
  raise OSError("an export must load without a network")

socket.socket.connect = no_network
"""

# Qwen2.5-VL's own processor asks for torchvision, because it loads a processor
# of videos. Where it is not installed that one part is replaced; there are no
# videos.
NO_VIDEOS = """
if importlib.util.find_spec("torchvision") is None:
  from transformers.processing_utils import ProcessorMixin
  from transformers.video_processing_utils import BaseVideoProcessor

  class NoVideos(BaseVideoProcessor):
    def __init__(self):
      pass

  videos = "transformers.models.auto.video_processing_auto"
  auto = importlib.import_module(videos).AutoVideoProcessor
  auto.from_pretrained = classmethod(lambda *args, **kwargs: NoVideos())
  ProcessorMixin.check_argument_for_proper_class = lambda *args: None
"""


def block(page: Path, name: str = "") -> str:
  """The Python block of a page that begins with "# NAME"; "": with nothing."""
  blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
  start = f"# {name}\n" if name else "from PIL "
  [found] = [b for b in blocks if b.startswith(start)]
  return found


def run(code: str, out: Path, **names) -> dict:
  """Runs code in a fresh process; returns the arrays that it saved."""
  names["out"] = str(out)
  given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
  script = out.with_suffix(".py")
  script.write_text(OFFLINE + given + code)
  done = subprocess.run(
    [sys.executable, script],
    capture_output=True,
    text=True,
    env=os.environ
    | {
      "HF_HUB_OFFLINE": "1",
      "HF_MODULES_CACHE": str(out.parent / "modules"),
      # More threads do not speed up models this small; on a busy machine they
      # spin while they wait for each other.
      "OMP_NUM_THREADS": "1",
    },
    cwd=DOCS.parent.parent,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  with np.load(out) as file:
    return dict(file)
