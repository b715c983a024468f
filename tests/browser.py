"""Fixtures of the tests that look at pages in a browser.

They need Playwright, axe and Chromium: `make browser` installs the former and
finds the latter (FUSAR_BROWSER overrides the PATH). Without them the tests
skip, or fail with FUSAR_REQUIRE_BROWSER=1. Screenshots go to FUSAR_SCREENSHOTS,
by default to pytest's temporary folder.
"""

import importlib
import io
import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

VIEWS = {
  f"{device}-{scheme}": (size, scheme)
  for device, size in (("desk", (1280, 900)), ("phone", (390, 844)))
  for scheme in ("light", "dark")
}
_REQUIRED = os.environ.get("FUSAR_REQUIRE_BROWSER") == "1"


def _browser_path():
  """Returns the browser to start; None: Playwright's own, if installed."""
  names = (
    "chromium",
    "chromium-browser",
    "chromium-headless-shell",
    "google-chrome",
  )
  found = (shutil.which(name) for name in names)
  return os.environ.get("FUSAR_BROWSER") or next(filter(None, found), None)


@pytest.fixture(scope="module", name="browser")
def browser_fixture():
  load = importlib.import_module if _REQUIRED else pytest.importorskip
  load("axe_playwright_python")
  sync_api = load("playwright.sync_api")
  with sync_api.sync_playwright() as playwright:
    try:
      started = playwright.chromium.launch(
        # Containers rarely allow the browser sandbox.
        executable_path=_browser_path(),
        args=["--no-sandbox"],
        timeout=120_000,
      )
    except sync_api.Error as e:
      if _REQUIRED:
        raise
      pytest.skip(f"no browser starts: {str(e).splitlines()[0]}")
    yield started
    started.close()


@pytest.fixture(scope="module", name="screenshots")
def screenshots_fixture(tmp_path_factory):
  named = os.environ.get("FUSAR_SCREENSHOTS")
  folder = pathlib.Path(named) if named else tmp_path_factory.mktemp("views")
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def picture_when(page, ready, path=None):
  """Returns the first screenshot for which `ready(picture)` is true.

  On a busy machine the first pictures may precede the drawing. After 20 s
  raises AssertionError.
  """
  for _ in range(80):
    shown = picture(page, path)
    if ready(shown):
      return shown
    page.wait_for_timeout(250)
  raise AssertionError(f"no picture of {page.url} was ready: {path}")


def picture(page, path=None):
  """Returns a screenshot of the window, uint8[H, W, 3]."""
  data = page.screenshot(path=path)
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
