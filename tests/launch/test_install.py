"""Every extra resolves with our constraints on each supported Python.

`make launch` resolves them with uv, as `launch/worker.sh` does on a TPU VM;
nothing is installed.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = "constraints.txt"
CASES = [
  *(
    (extra, python, PINNED)
    for extra in ("", "tpu,gcs", "gpu", "wandb,mlflow")
    for python in ("3.11", "3.12", "3.13")
  ),
  ("plan", "3.11", "constraints-plan.txt"),
  ("plan", "3.13", "constraints-plan.txt"),
  ("test", "3.13", "constraints-3.13.txt"),
  ("tpu", "3.13", "constraints-3.13.txt"),
  ("parity", "3.11", PINNED),
]


@pytest.mark.parametrize(("extra", "python", "constraints"), CASES)
def test_an_extra_resolves(extra, python, constraints):
  tools = os.environ.get("FUSAR_LAUNCH_TOOLS")
  if not tools:
    pytest.skip("resolves packages from the registry: make launch")
  command = [
    *(Path(tools) / "uv", "pip", "compile", "pyproject.toml", "--quiet"),
    *("--constraints", constraints, "--python-version", python),
    # Any Python can run uv; uv would download the other versions.
    *("--python", sys.executable, "--no-python-downloads"),
    # glibc of Ubuntu 22.04, as on TPU VMs; libtpu needs 2.31.
    *("--python-platform", "x86_64-manylinux_2_35", "--no-header"),
    *(f"--extra={name}" for name in extra.split(",") if name),
  ]
  out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert out.returncode == 0, out.stderr
  resolved = _pins(out.stdout)
  allowed = _pins((ROOT / constraints).read_text())
  if constraints == "constraints-plan.txt":
    allowed |= _pins((ROOT / PINNED).read_text())
  assert resolved["jax"] == allowed["jax"]
  for name in resolved.keys() & allowed.keys():
    assert resolved[name] == allowed[name], name
  assert ("libtpu" in resolved) == (extra in ("tpu,gcs", "tpu", "plan"))


def _pins(text: str) -> dict[str, str]:
  found = re.findall(r"^([\w.-]+)==(\S+)", text, re.M)
  return {name.lower().replace("_", "-"): version for name, version in found}
