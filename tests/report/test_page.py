"""The evaluation page: self-contained, escaped, consistent with the scores."""

import base64
import dataclasses
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from fusar_jax import evaluate
from fusar_jax.data.triplets import write_manifest
from fusar_jax.report import baselines
from fusar_jax.report.answers import read_answers
from fusar_jax.report.evaluation import report_evaluation
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import Score, read_scores
from fusar_jax.report.scoring import read_rows, score_rows
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
  rows, predictions = [], []
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
    predictions.append(
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
  write_manifest(folder / "predictions.jsonl", predictions)
  return folder / "manifest.jsonl", folder / "predictions.jsonl"


def _double(match):
  return str(2 * int(match.group()))


@pytest.fixture(scope="module")
def answers(files):
  rows, missing, _ = read_rows(files[1], files[0])
  assert missing == 1
  return read_answers(rows, score_rows(rows)[1], files[0])


@pytest.fixture(scope="module")
def page(files, tmp_path_factory):
  """The page as written by the `evaluate` command."""
  out = tmp_path_factory.mktemp("scores")
  command = ["--predictions", str(files[1]), "--manifest", str(files[0])]
  assert evaluate.main([*command, "--out", str(out)]) == 0
  return (out / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def reader(page, read_page):
  return read_page(page)


def test_only_the_embedded_script_runs(page, reader):
  """The policy allows it by hash, and links lead into the page."""
  script = reader.text("script")
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  policy = reader.named("meta")[1]["content"]
  assert f"script-src 'sha256-{digest}'" in policy
  assert len(reader.named("script")) == 1
  assert "</" not in script


def test_output_of_a_model_is_escaped(page):
  assert "<script src" not in page
  assert "&lt;script src=http" in page
  assert "no &lt;b&gt;water" in page
  assert "\x00" not in page


def written(folder, **sections):
  """Returns a page of the given sections; the others are empty."""
  empty = {"scores": (), "samples": (), "curves": ()}
  empty |= {"baselines": {}, "provenance": {}, "title": "a < b"}
  write_report(folder / "new" / "page.html", **(empty | sections))
  return (folder / "new" / "page.html").read_text("utf-8")


def test_answers_are_judged_as_by_the_scorer(answers):
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
  assert answers[2].error
  assert answers[2].quality == answers[6].quality == 0
  assert 0.8 < answers[7].quality < 1
  assert answers[0].classes == ("ship",)
  assert answers[4].classes == ("cargo ship",)
  # The image of the last row does not exist.
  assert answers[8].image is None
  assert answers[8].image_name.endswith("b.png")


def test_boxes_are_pixels_of_the_answer(answers):
  """Answers are in 40 x 60 pixels; IoU 18 / 22 with [8, 4, 28, 24]."""
  found, missed = answers[5], answers[6]
  assert found.size == (40, 60)
  np.testing.assert_allclose(found.true.boxes, [[8, 4, 28, 24]])
  np.testing.assert_allclose(found.predicted.boxes, [[10, 4, 30, 24]])
  np.testing.assert_allclose(found.found, [18 / 22], rtol=1e-6)
  assert (found.hit, missed.found, missed.hit) == ([True], [0.0], [])
  # Classification shows the box in the question, counting all boxes.
  np.testing.assert_allclose(answers[4].true.boxes, [[4, 2, 14, 12]])
  np.testing.assert_allclose(answers[0].true.boxes, [[4, 2, 14, 12]])


def test_sarchat_answers_are_judged_too(scored):
  given = [("a", "2", "2"), ("b", "2", "3")]
  answers, metrics = scored("sarchat-counting", given)
  assert [a.errors for a in answers] == [(), ("statement wrong",)]
  assert {s.task for s in read_scores(metrics)} == {"sarchat-counting"}


def test_cards_can_be_filtered(reader):
  """Each card has the values that the filter offers."""
  cards = reader.named("article", "answer")
  assert len(cards) == len(ASKED) + 1
  offered = {attrs.get("value") for attrs in reader.named("option")}
  for name in ("data-task", "data-classes", "data-errors", "data-kind"):
    assert {card[name] for card in cards} <= offered
  names = [attrs["name"] for attrs in reader.named("select")]
  assert {f"data-{name}" for name in names} <= set(cards[0])
  assert sum(card["data-errors"] == "nothing" for card in cards) == 3


def test_every_control_has_a_name(page, reader):
  """Controls have labels; scrollable elements are focusable."""
  labels = re.findall(r"<label.*?</label>", page, re.DOTALL)
  controls = reader.named("select") + reader.named("input")
  assert len(controls) == sum(
    bool(re.search("<select|<input", label)) for label in labels
  )
  for attrs in reader.named("div", "scroll"):
    assert attrs["tabindex"] == "0"
    assert attrs["aria-label"]
  for attrs in reader.named("svg"):
    assert attrs.get("role") == "img" or attrs.get("aria-hidden") == "true"


def test_an_image_is_embedded_once_without_loss(reader, files):
  (image,) = reader.named("image")
  data = base64.b64decode(image["href"].partition(",")[2])
  embedded = Image.open(io.BytesIO(data))
  assert embedded.mode == "L"
  expected = Image.open(files[0].parent / "a.png")
  np.testing.assert_array_equal(np.asarray(embedded), np.asarray(expected))


def test_boxes_are_drawn_at_their_pixels(page):
  """Corners lie 0.5 pixels outside the true box; arms are a quarter side."""
  (drawing,) = re.findall(r"<svg[^>]*>\s*<title>r5:.*?</svg>", page, re.DOTALL)
  assert 'viewBox="0 0 60 40"' in drawing
  assert 'transform="scale(60 40)"' in drawing
  assert '<path class="predicted" d="M10.0 4.0H30.0V24.0H10.0Z">' in drawing
  (path,) = re.findall(r'<path class="true" d="([^"]+)"', drawing)
  assert path.count("M") == 4
  assert "M12.7 3.5H7.5V8.7" in path


def test_a_long_answer_is_cut(tmp_path, answers):
  text = "9" * 50_000_000
  page = written(
    tmp_path, samples=[dataclasses.replace(answers[0], prediction=text)]
  )
  assert len(page) < 100_000
  assert "49998000 more characters" in page


def test_scores_baselines_and_published_scores(page):
  """Counting: 1 of 4 right (one is missing); majority baseline "1": 4 of 4."""
  assert "<b>25.0 (4.6-69.9)</b>" in page
  assert "<span>100.0 (51.0-100.0)</span></td>" in page
  assert "exact count: 25.0 (4.6-69.9) on 0 to 100" in page
  assert "<span>34.85 / 52.53</span></td>" in page
  assert "Published numbers come from other data" in page


def test_read_scores():
  """Every score of other tasks; of counting the main ones in their order."""
  names = {"exact": 0.5, "acc": 0.25}
  given = {**names, "acc@0.5": 0.1, "n": 8, "parse_failure_rate": 0.0}
  given["ci95"] = {name: [v - 0.25, v + 0.25] for name, v in names.items()}
  counting = {"mae": 0.5, "accuracy": 0.5, "within_1": 0.75, "n": 4}
  counting["ci95"] = {key: [0, 1] for key in counting if key != "n"}
  counting["parse_failure_rate"] = 0.0
  metrics = {"sarchat-counting": given, "counting": counting, "n": 8}
  scores = read_scores(metrics | {"version": "x"})
  assert [(s.task, s.name, s.value, s.low) for s in scores] == [
    ("counting", "accuracy", 0.5, 0),
    ("counting", "within_1", 0.75, 0),
    ("counting", "mae", 0.5, 0),
    ("sarchat-counting", "exact", 0.5, 0.25),
    ("sarchat-counting", "acc", 0.25, 0.0),
  ]


def test_rows_of_the_score_table(tmp_path):
  """Shares are in percent of 1, other scores in their unit."""
  scores = [
    Score("captioning", "accuracy", 0.5, 0.25, 0.75, 12, truncated=0.125),
    Score("captioning", "cider", 4.0, 2.5, 5.0, 12),
  ]
  page = written(tmp_path, scores=scores, baselines={"other": []})
  assert "published, other data" not in page
  assert "12.5 % cut off" in page
  # The strip maps 0 to 1 onto 5 to 145.
  assert "50.0 (25.0-75.0) on 0 to 100" in page
  assert 'd="M40.0 10H110.0"' in page
  assert "CIDEr-D, 0 to 10: 4.00 (2.50-5.00) on 0 to 5" in page
  assert 'd="M75.0 10H145.0"' in page


def test_baselines_have_labelled_shapes(tmp_path, read_page):
  """Ring, diamond and bar, in the heads, in the key and on the strip."""

  def scores(value):
    return [Score("counting", "accuracy", value, value - 0.1, value + 0.1, 12)]

  test = baselines.Tested(
    *("counting", "accuracy", "image-size", False, 0.5, 0.25, 0.25),
    *((0.1, 0.4), 0.01, True, 12, 12),
  )
  page = written(
    tmp_path,
    scores=scores(0.5),
    baselines={"first": scores(0.3), "second": scores(0.2)},
    tested=[test],
  )
  (strip,) = re.findall(r'<svg class="strip".*?</svg>', page, re.DOTALL)
  (key,) = re.findall(r'<p class="key quiet">.*?</p>', page, re.DOTALL)
  for shape in ('class="value"', 'class="other"', "other second", "blind"):
    assert shape in strip
    assert shape in key
  for name in ("this model", "first", "second", "strongest blind baseline"):
    assert f"</svg> {name}</span>" in key
  # The bar of 0.25 on an axis with labels at 5 and at 145.
  assert '<path class="blind" d="M40.0 3v14"/>' in strip
  assert ">0</text>" in strip
  assert ">100</text>" in strip
  assert "image-size 25.0" in page
  read_page(page)


def test_links_and_controls_have_distinct_names(page, reader):
  """The first link skips to the content."""
  links = re.findall(r"<a [^>]*>(.*?)</a>", page, re.DOTALL)
  assert links[0] == "Skip to content"
  assert len(links) == len({*links}) == 5
  first = reader.named("a")[0]
  assert first == {"class": "skip-link", "href": "#content"}
  folded = re.findall(r"<summary>(.*?)</summary>", page, re.DOTALL)
  assert len(folded) == len({*folded}) > 8
  regions = [attrs.get("aria-label") for attrs in reader.named("div")]
  regions = [name for name in regions if name]
  assert len(regions) == len({*regions})


def test_without_images_there_are_charts_and_texts(tmp_path, files):
  rows = [json.loads(line) for line in files[0].read_text().splitlines()]
  write_manifest(tmp_path / "m.jsonl", [r | {"image": "x.png"} for r in rows])
  command = ["--predictions", str(files[1]), "--out", str(tmp_path / "out")]
  assert evaluate.main([*command, "--manifest", f"{tmp_path}/m.jsonl"]) == 0
  page = (tmp_path / "out" / "report.html").read_text("utf-8")
  assert "<image" not in page
  assert 'id="figures"' in page
  # Boxes are drawn on black if their coordinate size is known.
  assert 'class="predicted" d="M10.0 4.0H30.0V24.0H10.0Z"' in page


def test_the_report_names_the_run_of_the_model(tmp_path, files, read_page):
  """Also without a manifest, and if the predictions lie elsewhere."""
  run = tmp_path / "stage7"
  run.mkdir()
  config = {"config": {"learning_rate": 0.125}}
  (run / "config.json").write_text(json.dumps(config))
  record = {"base": {"kind": "random"}, "data": {"train": []}}
  (run / "provenance.json").write_text(json.dumps(record))
  rows = read_rows(files[1]).rows
  metrics, samples = score_rows(rows)
  about = (files[1], None, metrics, rows, samples)
  path = report_evaluation(tmp_path, *about, baselines={}, model=str(run))
  page = path.read_text("utf-8")
  assert "answered by stage7</h1>" in page
  assert "0.125" in page
  assert "manifest_sha256" not in page
  assert len(read_page(page).named("article", "answer")) == len(ASKED)


def test_an_empty_page_has_no_sections(tmp_path):
  page = written(tmp_path)
  assert "<section" not in page
  assert "<script" not in page
  assert "<h1>a &lt; b</h1>" in page
  assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
