"""The evaluation page: self-contained, escaped, consistent with the scores."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fusar_jax import evaluate
from fusar_jax.data.triplets import write_manifest
from fusar_jax.report import answer_card, choice, picture_store
from fusar_jax.report.answers import read_answers
from fusar_jax.report.evaluation import report_evaluation
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import Score, read_scores, score_table
from fusar_jax.tasks import captioning, classification, counting, detection
from fusar_jax.tasks.predictions import prediction_row

# Output of a hostile model.
EVIL = "</dd><script src=http://evil.example/x.js></script>\"'&\x00"
SHIPS = '[{"bbox_2d": [4, 2, 14, 12], "label": "ship"}]'
FIELDS = dict.fromkeys(captioning.FIELDS, "water")
# (task, question, truth, answer, whether it is right).
ASKED = [
  ("counting", counting.question("ship"), "1", "1", True),
  ("counting", counting.question("ship"), "1", "3", False),
  ("counting", counting.question("ship"), "1", EVIL, False),
  ("grounding", "Which cells of the 3 x 3 grid?", "center", "center", True),
  (
    "classification",
    classification.question([4, 2, 14, 12], ["cargo ship", "airliner plane"]),
    "cargo ship",
    "airliner plane",
    False,
  ),
  (
    "detection",
    detection.question("ship"),
    SHIPS,
    '[{"bbox_2d": [5, 2, 15, 12], "label": "ship"}]',
    True,
  ),
  ("detection", detection.question("ship"), SHIPS, "None", False),
  (
    "captioning",
    captioning.question(),
    captioning.answer(FIELDS),
    captioning.answer(FIELDS | {"Water": "no <b>water</b>"}),
    False,
  ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """(manifest, predictions): images of 20 x 30, the second one missing."""
  folder = tmp_path_factory.mktemp("data")
  pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
  Image.fromarray(pixels).save(folder / "a.png")
  rows, said = [], []
  for k, (task, question, truth, text, _) in enumerate(ASKED):
    common = {"id": f"r{k}", "question": question, "task": task}
    rows.append(
      common
      | {"image": "a.png", "coordinate_size": [20, 30], "answer": truth}
      | {"boxes": [[4, 2, 14, 12]], "labels": ["ship"]}
    )
    # Detection answers use an image of twice the size.
    size = [40, 60] if task == "detection" else [20, 30]
    doubled = re.sub(r"(?<=[\[ ])\d+(?=[,\]])", _double, text)
    said.append(
      prediction_row(
        **common,
        gt=truth,
        prediction_text=doubled if task == "detection" else text,
        coordinate_size=size,
        image="a.png",
      )
    )
  rows.append(rows[0] | {"id": "lost", "image": "b.png"})
  write_manifest(folder / "manifest.jsonl", rows)
  write_manifest(folder / "predictions.jsonl", said)
  return folder / "manifest.jsonl", folder / "predictions.jsonl"


def _double(match):
  return str(2 * int(match.group()))


@pytest.fixture(scope="module")
def answers(files):
  rows, missing, _ = evaluate.read_rows(files[1], files[0])
  assert missing == 1
  return read_answers(rows, evaluate.score_rows(rows)[1], files[0])


@pytest.fixture(scope="module")
def page(files, tmp_path_factory):
  """The page as written by the `evaluate` command."""
  out = tmp_path_factory.mktemp("scores")
  command = ["--predictions", str(files[1]), "--manifest", str(files[0])]
  assert evaluate.main([*command, "--out", str(out)]) == 0
  return (out / "report.html").read_text("utf-8")


class Reader(html.parser.HTMLParser):
  """Collects tags, attributes and scripts; asserts that tags are balanced."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.open, self.scripts = [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "br", "input"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "script" in self.open:
      self.scripts.append(data)

  def named(self, tag, kind=None):
    return [
      attrs
      for name, attrs in self.tags
      if name == tag and kind in (None, attrs.get("class"))
    ]


def test_the_page_needs_nothing_else(page):
  """One script, allowed by hash; references are data URIs or internal."""
  reader = Reader(page)
  tags = {tag for tag, _ in reader.tags}
  assert not tags & {"link", "iframe", "img", "object", "base"}
  assert "url(" not in page
  assert "@import" not in page
  for _, attrs in reader.tags:
    assert not any(name.startswith("on") for name in attrs)
    for name in ("href", "src"):
      assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
  policy = reader.named("meta")[1]["content"]
  assert policy.startswith("default-src 'none'")
  (script,) = reader.scripts
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in policy
  ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
  assert len(ids) == len(set(ids))
  for attrs in reader.named("use") + reader.named("a"):
    assert attrs["href"][1:] in ids


def test_what_a_model_says_is_escaped(page):
  assert "<script src" not in page
  assert "&lt;script src=http" in page
  assert "no &lt;b&gt;water" in page


def test_right_and_wrong_as_scored(answers):
  assert [a.right for a in answers[:8]] == [asked[-1] for asked in ASKED]
  assert [a.id for a in answers] == [*(f"r{k}" for k in range(8)), "lost"]
  assert [answer.errors for answer in answers] == [
    (),
    ("too many",),
    ("not read",),
    (),
    ("other kind",),
    (),
    ("target missed",),
    ("field wrong",),
    ("not read",),
  ]
  unread = answers[2]
  assert unread.error
  assert unread.quality == 0
  near, far = answers[7].quality, answers[6].quality
  assert 0.8 < near < 1
  assert far == 0


def test_what_is_not_at_hand_is_counted_and_not_shown(answers):
  lost = answers[8]
  assert lost.image is None
  assert lost.image_name.endswith("b.png")


def test_boxes_found_and_alarms(answers):
  """IoU of [10, 4, 30, 24] with [8, 4, 28, 24]: 18 / 22."""
  found, missed = answers[5], answers[6]
  np.testing.assert_allclose(found.found, [18 / 22], rtol=1e-6)
  assert found.hit == [True]
  assert missed.found == [0.0]
  assert missed.hit == []


def test_an_answer_carries_its_class(answers):
  assert answers[0].classes == ("ship",)
  assert answers[4].classes == ("cargo ship",)


def test_boxes_are_pixels_of_the_answer(answers):
  """True and predicted boxes use the prediction's size, 40 x 60 pixels."""
  found = answers[5]
  assert found.size == (40, 60)
  np.testing.assert_allclose(found.true.boxes, [[8, 4, 28, 24]])
  np.testing.assert_allclose(found.predicted.boxes, [[10, 4, 30, 24]])
  # Classification shows the box in the question, counting all boxes.
  np.testing.assert_allclose(answers[4].true.boxes, [[4, 2, 14, 12]])
  np.testing.assert_allclose(answers[0].true.boxes, [[4, 2, 14, 12]])


def test_cards_can_be_filtered(page):
  """Each card has the values that the filter offers."""
  reader = Reader(page)
  cards = reader.named("article", "answer")
  assert len(cards) == len(ASKED) + 1
  offered = {attrs.get("value") for attrs in reader.named("option")}
  for name in ("data-task", "data-classes", "data-errors", "data-kind"):
    assert {card[name] for card in cards} <= offered
  names = [attrs["name"] for attrs in reader.named("select")]
  assert {f"data-{name}" for name in names} <= set(cards[0])
  assert sum(card["data-errors"] == "nothing" for card in cards) == 3


def test_every_control_has_a_name(page):
  """Controls have labels; scrollable elements are focusable."""
  labels = re.findall(r"<label.*?</label>", page, re.DOTALL)
  controls = re.findall(r"<(?:select|input)\b", page)
  assert len(controls) == sum(
    bool(re.search("<select|<input", x)) for x in labels
  )
  for attrs in Reader(page).named("div", "scroll"):
    assert attrs["tabindex"] == "0"
    assert attrs["aria-label"]
  for attrs in Reader(page).named("svg"):
    assert attrs.get("role") == "img" or attrs.get("aria-hidden") == "true"


def test_an_image_is_embedded_once_and_whole(page, files):
  (image,) = Reader(page).named("image")
  data = base64.b64decode(image["href"].partition(",")[2])
  embedded = Image.open(io.BytesIO(data))
  assert embedded.mode == "L"
  expected = Image.open(files[0].parent / "a.png")
  np.testing.assert_array_equal(np.asarray(embedded), np.asarray(expected))


def test_a_box_stands_where_it_belongs(answers):
  item = choice.Chosen(answers[5], choice.BEST)
  (kept,), store = picture_store.fill([item])
  html = answer_card.card(kept, store.pictures[kept.answer.image_name])
  assert 'viewBox="0 0 60 40"' in html
  assert 'transform="scale(60 40)"' in html
  assert '<path class="said" d="M10.0 4.0H30.0V24.0H10.0Z">' in html
  # Corners lie 0.5 pixels outside the true box; arms are a quarter side long.
  (path,) = re.findall(r'<path class="true" d="([^"]+)"', html)
  assert path.count("M") == 4
  assert "M12.7 3.5H7.5V8.7" in path


def test_a_long_answer_is_cut(answers):
  long = dataclasses.replace(answers[0], said="9" * 50_000_000)
  html = answer_card.card(choice.Chosen(long, choice.WORST), None)
  assert len(html) < 10_000
  assert "49998000 more characters" in html


def test_scores_stand_beside_baselines_and_published_ones(page):
  """Counting: 1 of 4 right (one is missing); majority baseline "1": 4 of 4."""
  assert "<b>25.0 (4.6-69.9)</b>" in page
  assert "<span>100.0 (51.0-100.0)</span></td>" in page
  assert "<span>34.85 / 52.53</span></td>" in page
  assert "Published numbers come from other data" in page


def test_other_tasks_show_every_score_with_an_interval():
  given = {"exact": 0.5, "acc": 0.25, "acc@0.5": 0.1, "n": 8}
  given |= {"ci95": {"exact": [0.2, 0.8], "acc": [0.1, 0.4]}}
  given["parse_failure_rate"] = 0.0
  scores = read_scores({"sarchat-counting": given, "n": 8, "version": "x"})
  assert [(s.task, s.name, s.value, s.low) for s in scores] == [
    ("sarchat-counting", "exact", 0.5, 0.2),
    ("sarchat-counting", "acc", 0.25, 0.1),
  ]


def test_sarchat_answers_are_judged_too(scored):
  given = [("a", "2", "2"), ("b", "2", "3")]
  answers, metrics = scored("sarchat-counting", given)
  assert [a.errors for a in answers] == [(), ("statement wrong",)]
  assert {s.task for s in read_scores(metrics)} == {"sarchat-counting"}


def test_without_published_scores_there_is_no_column():
  score = Score("captioning", "accuracy", 0.5, 0.25, 0.75, 12)
  table = score_table([score], {"other": []})
  assert "published" not in table
  # The strip maps 0 to 1 onto 5 to 145.
  assert 'd="M40.0 10H110.0"' in table
  assert '<td data-column="other"></td>' in table


def test_errors_of_counts_are_no_percent():
  metrics = {"mae": 0.5, "accuracy": 0.5, "within_1": 0.75}
  interval = {name: [v - 0.25, v + 0.25] for name, v in metrics.items()}
  metrics |= {"ci95": interval, "n": 4, "parse_failure_rate": 0.0}
  scores = read_scores({"counting": metrics, "version": "x"})
  assert [s.name for s in scores] == ["accuracy", "within_1", "mae"]
  assert "0.50 (0.25-0.75)" in score_table(scores, {})


def test_cider_runs_up_to_ten():
  score = Score("captioning", "cider", 4.0, 2.5, 5.0, 12)
  table = score_table([score], {})
  assert "4.00 (2.50-5.00) on 0 to 5.00" in table


def test_without_images_there_are_figures_and_words(tmp_path, files):
  rows = [json.loads(line) for line in files[0].read_text().splitlines()]
  write_manifest(tmp_path / "m.jsonl", [r | {"image": "x.png"} for r in rows])
  command = ["--predictions", str(files[1]), "--out", str(tmp_path / "out")]
  assert evaluate.main([*command, "--manifest", f"{tmp_path}/m.jsonl"]) == 0
  page = (tmp_path / "out" / "report.html").read_text("utf-8")
  assert "<image" not in page
  assert 'id="figures"' in page
  # Boxes are drawn on black if their coordinate size is known.
  assert 'class="said" d="M10.0 4.0H30.0V24.0H10.0Z"' in page


def test_without_a_manifest_there_is_a_page(tmp_path, files):
  rows = evaluate.read_rows(files[1]).rows
  metrics, samples = evaluate.score_rows(rows)
  path = report_evaluation(
    tmp_path, files[1], None, metrics, rows, samples, baselines={}
  )
  page = path.read_text("utf-8")
  assert len(Reader(page).named("article", "answer")) == len(ASKED)
  assert "manifest_sha256" not in page


def test_the_run_that_answered_is_named_wherever_its_answers_lie(
  tmp_path, files
):
  run = tmp_path / "stage7"
  run.mkdir()
  config = {"config": {"learning_rate": 0.125}}
  (run / "config.json").write_text(json.dumps(config))
  record = {"base": {"kind": "random"}, "data": {"train": []}}
  (run / "provenance.json").write_text(json.dumps(record))
  rows = evaluate.read_rows(files[1]).rows
  metrics, samples = evaluate.score_rows(rows)
  about = (files[1], None, metrics, rows, samples)
  path = report_evaluation(tmp_path, *about, baselines={}, model=str(run))
  page = path.read_text("utf-8")
  assert "answered by stage7</h1>" in page
  assert "0.125" in page


def test_a_page_of_nothing_has_no_sections(tmp_path):
  path = tmp_path / "new" / "page.html"
  nothing = {"scores": (), "samples": (), "curves": ()}
  write_report(path, title="a < b", baselines={}, provenance={}, **nothing)
  page = path.read_text("utf-8")
  assert "<section" not in page
  assert "<script" not in page
  assert "<h1>a &lt; b</h1>" in page
