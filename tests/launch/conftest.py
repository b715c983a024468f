"""Starts the launchers, with scripted stand-ins for the tools of clouds."""

import os
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIVEN = {
  "PROJECT": "my-project",
  "ZONE": "us-west4-a",
  "CLUSTER": "fusar",
  "NAME": "stage1",
  "TYPE": "v5litepod-16",
  "BUCKET": "my-bucket",
  "WORKDIR": "gs://my-bucket/runs/stage1",
  "IMAGE": "us-docker.pkg.dev/my-project/images/fusar-jax",
  "NODES": "2",
  "GPUS": "4",
}


class Sandbox:
  """A folder with stand-ins, in which scripts run."""

  def __init__(self, folder: Path):
    self.folder = folder

  def stand_in(self, name: str, *lines: str) -> None:
    """Writes a script in place of a tool."""
    file = self.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(("#!/usr/bin/env bash", *lines, "")))
    file.chmod(0o755)

  def environment(self, **variables: str) -> dict[str, str]:
    """Without the caller's variables, which would hide a missing one."""
    return {
      "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
      "HOME": str(self.folder),
      "TMPDIR": str(self.folder),
      **variables,
    }

  def run(self, *command, cwd=None, **variables) -> subprocess.CompletedProcess:
    return subprocess.run(
      list(map(str, command)),
      cwd=cwd or self.folder,
      env=self.environment(**variables),
      capture_output=True,
      text=True,
      timeout=120,
    )

  def launch(self, script: str, *arguments: str, **variables):
    """Runs launch/SCRIPT.sh; dry runs in the repository, others here."""
    path, cwd = f"launch/{script}.sh", ROOT
    if "--dry-run" not in arguments and arguments:
      path, cwd = ROOT / path, self.folder
    return self.run(path, *arguments, cwd=cwd, **variables)

  def read(self, name: str) -> str:
    return (self.folder / name).read_text()


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
  return Sandbox(tmp_path)


@pytest.fixture(scope="session")
def given() -> dict[str, str]:
  """Variables of the launchers."""
  return GIVEN


@pytest.fixture(scope="session")
def until():
  """until(condition): waits for it for two minutes at most."""

  def until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
      assert time.monotonic() < end, "the condition never became true"
      time.sleep(0.05)

  return until
