"""Report and doctor page in a browser: desktop and phone, light and dark."""

import contextlib
import dataclasses
import pathlib

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.triplets import write_manifest
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.report.curves import Curve
from fusar_jax.report.doctor import examine
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import read_scores
from fusar_jax.tasks import detection
from tests.browser import (  # noqa: F401  Fixtures.
  VIEWS,
  browser_fixture,
  picture,
  picture_when,
  screenshots_fixture,
)

SECTIONS = ("scores", "figures", "samples", "training", "provenance")
# Lists elements that overflow the viewport horizontally.
_TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest(".scroll, pre, svg"))
  .map(e => e.outerHTML.slice(0, 80))"""
# Lists pairs of labels of a chart whose boxes meet.
_COLLISIONS = """() => [...document.querySelectorAll("figure svg")].flatMap(
  svg => {
    const boxes = [...svg.querySelectorAll("text")].map(
      t => [t.textContent, t.getBoundingClientRect()]);
    return boxes.flatMap(([a, p], k) => boxes.slice(0, k)
      .filter(([b, q]) => p.left < q.right - 0.5 && q.left < p.right - 0.5
        && p.top < q.bottom - 2.5 && q.top < p.bottom - 2.5)
      .map(([b]) => [a, b]));
  })"""
# Lists the rules that a page breaks seriously, and where.
_VIOLATIONS = """() => axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a",
  "wcag21aa", "best-practice"]}).then(found => found.violations
  .filter(v => ["serious", "critical"].includes(v.impact))
  .map(v => [v.id, v.nodes[0].html.slice(0, 120), v.nodes.length]))"""
_SAMPLES = 1200
# Interactions do not depend on the scheme: two of the four views suffice.
_both = pytest.mark.parametrize(
  "view", ["desk-light", "phone-dark"], indirect=True
)


@pytest.fixture(scope="module")
def page_path(scored, tmp_path_factory):
  """A page of 1260 answers about 60 images, of which it shows 1000."""
  folder = tmp_path_factory.mktemp("page")
  rng = np.random.default_rng(0)
  features = rng.normal(size=(81, 64)).astype(np.float32)
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  grid = np.indices((9, 9)).reshape(2, 81).T.astype(np.float32)
  write_anchors(folder / "a.npz", Anchors(features, (grid + 0.5) / 9))
  for k in range(60):
    pixels = rng.integers(0, 255, (64, 96), np.uint8)
    Image.fromarray(pixels).save(folder / f"{k}.png")
  truths = rng.integers(0, 6, _SAMPLES).tolist()
  counts = [max(0, n + int(rng.integers(-1, 2))) for n in truths]
  counted, metrics = scored(
    "counting",
    [
      (f"{k % 60}.png", str(n), str(m))
      for k, (n, m) in enumerate(zip(truths, counts))
    ],
  )
  box = '[{"bbox_2d": [%d, 4, %d, 24], "label": "ship"}]'
  found, more = scored(
    "detection",
    [
      (f"{k}.png", box % (4, 24), box % (4 + x, 24 + x))
      for k, x in enumerate(rng.integers(0, 40, 60).tolist())
    ],
  )
  answers = [
    dataclasses.replace(
      answer,
      image=folder / answer.image_name,
      anchors=folder / "a.npz",
      size=(64, 96),
    )
    for answer in (counted + found)
  ]
  metrics |= more
  write_report(
    folder / "report.html",
    title="A page for the browser",
    scores=read_scores(metrics),
    baselines={"the same": read_scores(metrics)},
    samples=answers,
    curves=[Curve("stage1", ((1, 4.0), (10, 0.4)), ((10, 0.6),))],
    provenance={"metrics": metrics},
  )
  return folder / "report.html"


@pytest.fixture(scope="module")
def doctor_path(page_path):
  """The doctor's page of two rows."""
  folder = page_path.parent
  rows = [
    {
      "id": f"r{k}",
      "image": f"{k}.png",
      "aef": "a.npz",
      "question": detection.question("ship"),
      "answer": '[{"bbox_2d": [4, 4, 24, 24], "label": "ship"}]',
      "coordinate_size": [64, 96],
      "task": "detection",
    }
    for k in range(2)
  ]
  write_manifest(folder / "manifest.jsonl", rows)
  examine([str(folder)], folder / "doctor.html", model="tiny-base")
  return folder / "doctor.html"


@pytest.fixture(scope="module", params=VIEWS)
def view(request, browser, page_path):
  """The opened report."""
  with opened(browser, request.param, page_path) as page:
    yield page


@contextlib.contextmanager
def opened(browser, name, path):
  """Yields a page; fails on console messages, errors or other requests."""
  (width, height), scheme = VIEWS[name]
  context = browser.new_context(
    viewport={"width": width, "height": height},
    color_scheme=scheme,
    has_touch=width < 600,
  )
  context.set_default_timeout(120_000)
  page = context.new_page()
  messages = []
  page.on("console", lambda message: messages.append(message.text))
  page.on("pageerror", lambda error: messages.append(str(error)))
  page.on("request", lambda request: messages.append(request.url[:80]))
  page.goto(path.as_uri())
  page.name = name
  yield page
  # Only the page itself and its embedded images may be requested.
  others = [
    text for text in messages if not text.startswith(("file:", "data:"))
  ]
  context.close()
  assert others == []


def cards(page):
  return page.locator(".answer:visible").count()


def test_every_section_renders(view, screenshots):
  """Every section renders in its scheme, and nothing overflows the window."""
  for name in SECTIONS:
    view.evaluate(f'document.getElementById("{name}").scrollIntoView()')
    path = screenshots / f"{view.name}-{name}.png"
    shades = picture_when(
      view, lambda shown: shown.mean(axis=2).std() > 3, path
    ).mean(axis=2)
    assert shades.std() > 3, name
    corner = shades[:40, :8].mean()
    assert (corner > 200) == view.name.endswith("light"), name
  assert view.evaluate(_TOO_WIDE) == []
  width = view.evaluate("document.documentElement.scrollWidth")
  assert width == view.viewport_size["width"]


def test_labels_of_charts_do_not_collide(view):
  assert view.locator("figure svg text").count() > 40
  assert view.evaluate(_COLLISIONS) == []


def test_nothing_serious_for_axe(view, browser, doctor_path):
  """Of the rules of WCAG 2.1 A and AA and of good practice."""
  axe = pytest.importorskip("axe_playwright_python")
  script = pathlib.Path(axe.__file__).with_name("axe.min.js").read_text("utf-8")
  with opened(browser, view.name, doctor_path) as page:
    for one in (view, page):
      one.evaluate(script)
      assert one.evaluate(_VIOLATIONS) == []
    assert page.evaluate(_TOO_WIDE) == []
    page.locator(".open").first.press("Enter")
    assert page.locator("dialog .drawing").is_visible()


@pytest.mark.parametrize("view", ["phone-dark"], indirect=True)
def test_a_phone_page_is_short(view):
  """Once every shown card was drawn: cards are rows, figures are in a line."""
  view.evaluate("""async () => {
    for (let y = 0; y < document.body.scrollHeight; y += 400) {
      scrollTo(0, y); await new Promise(requestAnimationFrame); } }""")
  body, samples = view.evaluate("""() => ["body", "#samples"].map(
    s => document.querySelector(s).offsetHeight)""")
  assert body < 22_000 / 3
  assert samples < 2600


@_both
def test_images_enlarge(view):
  """By keys: Enter opens, arrows step, Escape closes and returns the focus."""
  dialog = view.locator("dialog")
  assert not dialog.is_visible()
  first = view.locator(".open:visible").first
  name = first.get_attribute("aria-label")
  before = first.bounding_box()["width"]
  first.focus()
  view.keyboard.press("Enter")
  assert dialog.is_visible()
  drawing = view.locator("dialog .drawing").bounding_box()
  assert drawing["width"] > 1.8 * before
  title = dialog.locator("strong").inner_text()
  assert name.startswith(f"enlarge {title}:")
  view.keyboard.press("ArrowRight")
  assert dialog.locator("strong").inner_text() != title
  view.keyboard.press("ArrowLeft")
  view.keyboard.press("Escape")
  assert not dialog.is_visible()
  focused = "document.activeElement.getAttribute('aria-label')"
  assert view.evaluate(focused) == name
  assert view.locator("dialog [id]").count() == 0


@_both
def test_the_filter_stays_in_its_section(view):
  bounds = """() => [".filter", "#samples"].flatMap(s => {
    const box = document.querySelector(s).getBoundingClientRect();
    return [box.top, box.bottom]; })"""
  for target in ("#training", "body", "#samples", ".answer:nth-child(10)"):
    view.evaluate(f"document.querySelector('{target}').scrollIntoView()")
    top, bottom, start, end = view.evaluate(bounds)
    assert start <= top < bottom <= end
  assert (0 <= top < 20) == view.name.startswith("desk")


@_both
def test_the_first_key_skips_to_the_content(view):
  view.evaluate("document.body.tabIndex = -1; document.body.focus()")
  view.keyboard.press("Tab")
  link = view.locator(".skip-link")
  assert link.inner_text() == "Skip to content"
  assert link.bounding_box()["width"] > 60
  view.keyboard.press("Enter")
  assert view.evaluate("document.activeElement.id") == "content"


@_both
def test_cards_are_filtered_and_shown_in_batches(view):
  output, more = view.locator("output"), view.locator(".more")
  batch = 24 if view.name.startswith("desk") else 12
  assert output.inner_text() == f"{batch} of 1000 shown"
  assert cards(view) == batch
  more.click()
  assert cards(view) == 2 * batch
  view.select_option("select[name=task]", "detection")
  assert output.inner_text() == f"{batch} of 60 shown"
  view.select_option("select[name=errors]", "nothing")
  if more.is_visible():
    more.click()
  right = cards(view)
  assert 0 < right < 24
  assert not more.is_visible()
  assert view.locator(".answer:visible .good").count() == right
  view.select_option("select[name=errors]", "too few")
  assert output.inner_text() == "no matching cards"
  for name in ("task", "errors"):
    view.select_option(f"select[name={name}]", "")


@_both
def test_check_boxes_toggle_boxes_and_anchors(view):
  card = view.locator(".answer").first
  card.scroll_into_view_if_needed()
  bare = card.screenshot()
  view.check("#show-anchors")
  assert card.screenshot() != bare
  view.uncheck("#show-anchors")
  assert card.screenshot() == bare
  view.select_option("select[name=task]", "detection")
  assert view.locator(".answer:visible .true").first.is_visible()
  view.uncheck("#show-true")
  assert view.locator(".answer .true:visible").count() == 0
  view.check("#show-true")
  view.select_option("select[name=task]", "")


@_both
def test_keyboard_reaches_everything(view):
  """Tab reaches links, tables and filters, and each shows its focus."""
  # Tab continues from the last click unless the focus is reset.
  view.evaluate("document.body.tabIndex = -1; document.body.focus()")
  seen = []
  for _ in range(60):
    view.keyboard.press("Tab")
    seen.append(
      view.evaluate("""() => {
        const e = document.activeElement, s = getComputedStyle(e);
        return [e.tagName + (e.name ? " " + e.name : e.id ? " " + e.id : ""),
          s.outlineStyle != "none" && parseFloat(s.outlineWidth) >= 2];
      }""")
    )
    if seen[-1][0] == "INPUT show-anchors":
      break
  names = [name for name, _ in seen]
  for name in ("A", "SUMMARY", "SELECT task", "SELECT errors"):
    assert name in names
  assert names[-1] == "INPUT show-anchors"
  assert [name for name, shown in seen if not shown] == []
  view.keyboard.press("Space")
  assert view.is_checked("#show-anchors")
  view.keyboard.press("Space")


@pytest.mark.parametrize("view", ["phone-dark"], indirect=True)
def test_a_page_of_a_thousand_stays_usable(view, page_path):
  """Filtering takes < 2 s of thread time, independent of other processes."""
  assert page_path.stat().st_size < 20_000_000
  session = view.context.new_cdp_session(view)
  session.send("Performance.enable", {"timeDomain": "threadTicks"})

  def spent():
    found = session.send("Performance.getMetrics")["metrics"]
    return {m["name"]: m["value"] for m in found}["TaskDuration"]

  before = spent()
  view.select_option("select[name=kind]", "worst")
  view.select_option("select[name=kind]", "")
  picture(view)
  assert spent() - before < 2
