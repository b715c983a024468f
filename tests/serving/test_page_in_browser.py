"""The server's page in a real browser."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fusar_jax.metrics.box_matching import match
from fusar_jax.serving.examples import EXAMPLES
from fusar_jax.serving.limits import Limits
from fusar_jax.simulation.geotiff import sar_geotiff
from fusar_jax.simulation.scenes import draw_scene
from tests.browser import (  # noqa: F401  Fixtures.
  VIEWS,
  browser_fixture,
  picture,
  picture_when,
  screenshots_fixture,
)
from tests.serving.scene_helpers import two_bands

_TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter(e => e.checkVisibility())
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest("svg, .visually-hidden, pre"))
  .map(e => e.outerHTML.slice(0, 80))"""
_RECTS = """kind => [...document.querySelectorAll(`#map rect.${kind}`)]
  .map(e => ["x", "y", "width", "height"].map(n => e[n].baseVal.value)
    .concat(Object.values(e.getBoundingClientRect().toJSON()).slice(0, 4)))"""


@pytest.fixture(scope="module")
def site(serving):
  with serving(limits=Limits(new_tokens=256), scene_bytes=2**23) as running:
    yield running


@pytest.fixture(scope="module")
def simulated():
  """A scene whose targets are known."""
  return draw_scene(7, EXAMPLES[1].number)


@pytest.fixture
def visit(browser, site):
  """visit(view) -> the page; fails on console messages and errors."""
  contexts, messages = [], []

  def visit(view="desk-light", expect=()):
    (width, height), scheme = VIEWS[view]
    context = browser.new_context(
      viewport={"width": width, "height": height},
      color_scheme=scheme,
      has_touch=width < 600,
    )
    contexts.append(context)
    context.set_default_timeout(120_000)
    page = context.new_page()

    def heard(text):
      if not any(re.search(one, text) for one in expect):
        messages.append(text)

    page.on("console", lambda message: heard(message.text))
    page.on("pageerror", lambda error: heard(str(error)))
    page.on(
      "request",
      lambda request: (
        request.url.startswith((site.url, "blob:", "data:"))
        or messages.append(request.url)
      ),
    )
    page.goto(site.url)
    page.wait_for_selector("#examples button")
    return page

  yield visit
  for context in contexts:
    context.close()
  assert messages == []


def give(page, content: bytes, name: str) -> None:
  """Chooses a file, and waits until it is open."""
  page.set_input_files(
    "#file", {"name": name, "mimeType": "image/tiff", "buffer": content}
  )
  page.wait_for_selector("#ask:not([hidden])")
  page.get_by_role("heading", name=name).wait_for()


def ask(page, task="detection", class_name="plane") -> str:
  """Asks without anchors; returns the answer in words."""
  page.select_option("#task", task)
  if class_name:
    page.fill("#classes", class_name)
  if page.is_visible("#with-anchors") and page.is_enabled("#with-anchors"):
    page.uncheck("#with-anchors")
  page.click("#go")
  page.wait_for_selector("#stop", state="hidden")
  return page.inner_text("#summary")


def serious(page) -> list[str]:
  """Returns what axe finds serious or critical."""
  from axe_playwright_python.sync_playwright import Axe

  found = Axe().run(page).response
  assert len(found["passes"]) > 10
  return [
    f"{v['id']}: {v['nodes'][0]['html'][:120]}"
    for v in found["violations"]
    if v["impact"] in ("serious", "critical")
  ]


def settled(page, path) -> np.ndarray:
  """Returns a screenshot once the middle of the map is drawn and rests."""
  box = page.locator("#map").bounding_box()
  x, y = (
    int(box[k] + box[n] / 2) for k, n in (("x", "width"), ("y", "height"))
  )
  before = np.zeros(0)

  def rests(shown):
    nonlocal before
    last, before = before, shown
    return shown[y, x].any() and np.array_equal(shown, last)

  return picture_when(page, rests, path)


def boxes_on_screen(page, kind: str) -> np.ndarray:
  """Returns float[n, 8]: (x, y, width, height) in the scene, then on screen."""
  return np.array(page.evaluate(_RECTS, kind), float).reshape(-1, 8)


def test_other_bands_of_the_same_view(visit, tmp_path, screenshots):
  """The picture changes; the view and the history do not."""
  path = two_bands(tmp_path / "a.tif", np.indices((400, 400)) + 1)
  page = visit()
  give(page, path.read_bytes(), "two.tif")
  ask(page, "counting", "ship")
  page.click("#zoom-full")
  # The line follows the map, which is painted with the next frame.
  page.get_by_text("pixels at (0, 0), 1.0 : 1").wait_for()
  view = page.inner_text("#place")
  steps = {}
  for name in ("VV", "VH", "VV, VH, VV/VH"):
    page.select_option("#bands", label=name)
    page.get_by_text(f"· {name} ·").wait_for()
    page.wait_for_selector("#loading", state="hidden")
    shown = settled(page, screenshots / f"bands-{len(steps)}.png").astype(int)
    assert page.inner_text("#place") == view
    assert page.locator("#past li").count() == 1
    box = page.locator("#map").bounding_box()
    y, x = (
      int(box[k] + box[n] / 2) for k, n in (("y", "height"), ("x", "width"))
    )
    steps[name] = shown[y + 60, x] - shown[y - 60, x]
    assert abs(shown[y, x - 60] - shown[y, x + 60]).max() > 5 or name == "VV"
  # VV gets brighter to the bottom, VH does not.
  assert steps["VV"].min() > 20
  assert abs(steps["VH"]).max() < 8
  assert np.ptp(steps["VV, VH, VV/VH"]) > 15


def test_boxes_lie_on_their_targets(visit, simulated, screenshots):
  """Drawn boxes, the GeoJSON, the true boxes and bright pixels agree."""
  page = visit()
  give(page, sar_geotiff(simulated.db, simulated.place), "airport.tif")
  assert ask(page).endswith("planes")
  found = boxes_on_screen(page, "predicted")
  with page.expect_download() as download:
    page.click("#geojson")
  content = json.loads(download.value.path().read_text())
  a, _, c, _, e, f = simulated.place.transform
  rings = np.array(
    [one["geometry"]["coordinates"][0] for one in content["features"]]
  )
  pixels = (rings - (c, f)) / (a, e)
  boxes = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1)
  drawn = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
  np.testing.assert_allclose(drawn, boxes, atol=0.01)
  # The window is the whole scene: it says where a pixel is on the screen.
  (window,) = boxes_on_screen(page, "window")
  scale = window[6] / 168
  np.testing.assert_allclose(window[2:4], 168)
  at = (found[:, 4:6] - window[4:6]) / scale
  np.testing.assert_allclose(at, found[:, :2], atol=1.5 / scale)
  # Against truth: the base finds most of these aircraft.
  truth = np.array(simulated.boxes, np.float32)
  labels = ["plane"] * len(truth)
  pairs = match(boxes.astype(np.float32), ["plane"] * len(boxes), truth, labels)
  assert (pairs.iou >= 0.25).sum() >= len(truth) / 2
  # The picture is where the boxes are: targets are brighter than around them.
  page.uncheck("#show-findings")
  shades = picture(page, screenshots / "boxes.png").mean(axis=2)
  for x1, y1, x2, y2 in truth:
    left, top, right, bottom = (
      (np.array([x1, y1, x2, y2]) * scale + np.tile(window[4:6], 2))
      .round()
      .astype(int)
    )
    inside = shades[top:bottom, left:right]
    wide = shades[
      max(0, 2 * top - bottom) : 2 * bottom - top,
      max(0, 2 * left - right) : 2 * right - left,
    ]
    assert np.percentile(inside, 90) > np.percentile(wide, 75)
  with page.expect_download() as download:
    page.click("#csv")
  rows = download.value.path().read_text().splitlines()
  assert len(rows) == 1 + len(boxes)
  assert rows[0].startswith("scene,x1,y1,x2,y2,label,longitude,latitude")


def test_hover_and_select_both_ways(visit):
  """A finding is one thing in the list and on the scene; keys suffice."""
  page = visit()
  page.click("#examples li:nth-child(2) button")
  page.wait_for_selector("#ask:not([hidden])")
  assert "(simulated)" in page.inner_text("#about-title")
  ask(page)
  rows = page.locator("#list li")
  assert rows.count() > 1
  rows.nth(1).hover()
  assert page.locator("#map rect.hover").get_attribute("data-id") == "1"
  page.focus("#list")
  page.keyboard.press("ArrowDown")
  assert page.locator("#map rect.selected").get_attribute("data-id") == "0"
  page.keyboard.press("End")
  last = rows.count() - 1
  assert rows.nth(last).get_attribute("aria-selected") == "true"
  box = page.locator('#map rect[data-id="0"]').bounding_box()
  page.mouse.click(box["x"] + 2, box["y"] + 2)
  assert page.locator('#list [aria-selected="true"]').count() == 1
  # The scene by keys.
  page.focus("#map")
  before = page.inner_text("#place")
  page.keyboard.press("+")
  page.wait_for_function(
    "text => document.getElementById('place').innerText != text", arg=before
  )
  zoomed = page.inner_text("#place")
  page.keyboard.press("ArrowRight")
  page.wait_for_function(
    "text => document.getElementById('place').innerText != text", arg=zoomed
  )
  # A window by keys, and by hand.
  page.fill("#left", "20")
  assert boxes_on_screen(page, "window")[0][0] == 20
  page.keyboard.press("Tab")
  page.click("#draw")
  area = page.locator("#map").bounding_box()
  page.mouse.move(area["x"] + 200, area["y"] + 300)
  page.mouse.down()
  page.mouse.move(area["x"] + 400, area["y"] + 450, steps=4)
  page.mouse.up()
  (window,) = boxes_on_screen(page, "window")
  np.testing.assert_allclose(window[4:], [200, 300, 200, 150], atol=8)
  assert page.input_value("#left") == f"{window[0]:.0f}"


def test_anchors_are_compared(visit):
  page = visit()
  page.click("#examples li:nth-child(1) button")
  page.wait_for_selector("#ask:not([hidden])")
  bare = picture(page)
  page.check("#show-anchors")
  page.wait_for_function(
    "() => document.getElementById('anchor-note').innerText.includes('81')"
  )
  page.wait_for_timeout(300)
  assert (picture(page) != bare).any()
  page.select_option("#task", "counting")
  page.click("#compare")
  page.wait_for_selector("#stop", state="hidden")
  rows = page.locator("#comparison tbody tr")
  assert rows.count() == 4
  for k in range(4):
    assert rows.nth(k).locator("td").nth(0).inner_text() not in ("", "…")
  assert page.locator("#past li").count() == 4
  page.click("#past li:first-child button")
  assert page.locator('#past [aria-current="true"]').count() == 1


def test_errors_are_in_words_where_they_belong(visit, site):
  page = visit(expect=("Failed to load resource", "status of 4"))
  problem = page.locator("#problem")
  page.set_input_files(
    "#file", {"name": "a.txt", "mimeType": "", "buffer": b"no image"}
  )
  problem.wait_for()
  assert "a.txt is not an image" in problem.inner_text()
  page.set_input_files(
    "#file",
    {"name": "b.tif", "mimeType": "", "buffer": b"II*\0" + b"\0" * 2**23},
  )
  page.get_by_text("b.tif has 9 MiB, more than the 8 MiB").wait_for()
  page.set_input_files(
    "#file", {"name": "c.tif", "mimeType": "", "buffer": b"II*\0" + b"\0" * 99}
  )
  page.get_by_text("c.tif: not a raster").wait_for()
  pixels = np.random.default_rng(0).integers(0, 99, (60, 60), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  give(page, file.getvalue(), "<b>d</b>.png")
  assert not problem.is_visible()
  assert "no AlphaEarth archive" in page.inner_text("#anchor-note")
  page.fill("#classes", "")
  page.click("#go")
  assert "Name a class" in problem.inner_text()
  page.fill("#classes", "ship")
  body = json.dumps({"error": {"message": "128 requests wait already."}})
  page.route("**/ask", lambda route: route.fulfill(status=429, body=body))
  page.click("#go")
  page.get_by_text("The server is busy: 128 requests wait").wait_for()
  assert page.is_enabled("#go")
  page.unroute("**/ask")
  page.route("**/ask", lambda route: route.abort())
  page.click("#go")
  page.get_by_text("The server does not answer.").wait_for()
  page.unroute("**/ask")
  half = 'data: {"type": "text", "tile": 0, "text": "1"}\n\n'
  page.route(
    "**/ask",
    lambda route: route.fulfill(
      status=200, body=half, content_type="text/event-stream"
    ),
  )
  page.click("#go")
  page.get_by_text("the server has stopped").wait_for()


def test_two_users_at_once(visit, simulated):
  """Each sees the answers about the scene that is theirs."""
  one, two = visit(), visit("phone-dark")
  give(one, sar_geotiff(simulated.db, simulated.place), "one.tif")
  other = draw_scene(7, EXAMPLES[2].number)
  give(two, sar_geotiff(other.db, other.place), "two.tif")
  for page, name in ((one, "plane"), (two, "ship")):
    page.select_option("#task", "counting")
    page.fill("#classes", name)
    page.click("#go")
  for page in (one, two):
    page.wait_for_selector("#stop", state="hidden")
  assert "plane" in one.inner_text("#summary")
  assert "ship" in two.inner_text("#summary")
  for page in (one, two):
    assert page.locator("#past li").count() == 1
  # Several classes are several questions, shown together.
  one.fill("#classes", "plane, ship")
  one.click("#go")
  one.wait_for_selector("#stop", state="hidden")
  assert re.fullmatch(r"\d+ planes?, \d+ ships?", one.inner_text("#summary"))
  assert one.locator('#past [aria-current="true"]').count() == 2
  # A reload keeps the scene and its history.
  one.reload()
  one.wait_for_selector("#past li")
  assert one.inner_text("#about-title") == "one.tif"


@pytest.mark.parametrize("name", VIEWS)
def test_every_view(visit, screenshots, name):
  """Nothing is cut off or serious to axe, before and after an answer."""
  page = visit(name)
  picture(page, screenshots / f"page-{name}-start.png")
  assert serious(page) == []
  assert page.evaluate(_TOO_WIDE) == []
  page.click("#examples li:nth-child(1) button")
  page.wait_for_selector("#ask:not([hidden])")
  ask(page, "grounding", "ship")
  page.check("#show-truth")
  path = screenshots / f"page-{name}.png"

  def shades(shown):
    return shown.mean(axis=2)[100:300, :300].std()

  assert shades(picture_when(page, lambda s: shades(s) > 10, path)) > 10
  assert serious(page) == []
  assert page.evaluate(_TOO_WIDE) == []


def test_a_large_scene_is_panned(visit):
  """Tiles of the view come for every place and level; the overview fills."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(20, 250, (1500, 4000), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG", compress_level=0)
  page = visit()
  give(page, file.getvalue(), "large.png")
  area = page.locator("#map").bounding_box()
  page.wait_for_function(
    "() => !document.getElementById('place').dataset.overview",
    timeout=120_000,
  )

  def share(shown):
    return (shown[300:600, 100:800].mean(axis=2) > 0).mean()

  def bright():
    return share(picture_when(page, lambda s: share(s) > 0.95)) > 0.95

  assert bright()
  page.click("#zoom-full")
  for _ in range(3):
    page.mouse.move(area["x"] + 500, area["y"] + 400)
    page.mouse.down()
    page.mouse.move(area["x"] + 250, area["y"] + 330, steps=5)
    page.mouse.up()
    assert bright()
  page.mouse.wheel(0, 300)
  page.wait_for_timeout(200)
  assert bright()
