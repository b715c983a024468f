"""The command `doctor`: printed statistics, HTML page, exit code."""

import dataclasses
import json

import pytest

from fusar_jax import config as config_lib
from fusar_jax import doctor
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.hf.config_json import write_config
from fusar_jax.report.doctor import read_model
from fusar_jax.simulation.dataset import Plan, simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "simulated"
  simulate(folder, Plan(3, seed=3, size=112))
  return folder


@pytest.fixture(scope="module")
def rows(data):
  return list(map(json.loads, (data / "manifest.jsonl").open(encoding="utf-8")))


@pytest.fixture(scope="module")
def words(data, tmp_path_factory):
  rows = read_manifest(data / "manifest.jsonl")
  return train_sentencepiece(
    (text for row in rows for text in (row.question, row.answer)),
    tmp_path_factory.mktemp("words") / "tokenizer.model",
    vocab_size=400,
  )


@pytest.fixture
def run(tmp_path, words):
  """The files of a run that the doctor reads."""
  model = dataclasses.replace(config_lib.preset("tiny"), image_size=(56, 56))
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "provenance.json").write_text("{}")
  (folder / "config.json").write_text(
    json.dumps({"config": {}, "model": config_lib.to_dict(model)})
  )
  words.save(folder / "tokenizer")
  return folder


@pytest.fixture
def diagnose(call, tmp_path):
  """diagnose(*arguments) -> (Called, text of the page or None)."""

  def diagnose(*arguments):
    page = tmp_path / "page.html"
    page.unlink(missing_ok=True)
    done = call(doctor.main, *arguments, "--out", page)
    return done, page.read_text() if page.exists() else None

  return diagnose


def test_a_run_supplies_image_size_and_tokenizer(data, run, diagnose):
  done, page = diagnose(data, "--model", run, "--samples", 3)
  assert done.code == 0
  for text in ("0 errors, 0 warnings", "56 × 56", "tokens a row", "page.html"):
    assert text in done.text
  assert page.count("<article>") == 3
  assert "112 × 112 seen at 56 × 56" in page
  assert '<b class="supervised"' in page
  assert "<circle" in page


def test_rows_to_predict_need_no_answers(data, rows, run, diagnose):
  left_out = ("answer", "boxes", "labels")
  bare = [{k: v for k, v in r.items() if k not in left_out} for r in rows]
  write_manifest(data / "bare.jsonl", bare)
  asked = (data / "bare.jsonl", "--model", run, "--samples", 2)
  done, page = diagnose(*asked, "--for", "predict")
  assert done.code == 0
  for text in ("tokens a prompt", "longer than 4096", "0 errors, 0 warnings"):
    assert text in done.text
  assert "tokens of prompt" in page
  assert '<b class="supervised"' not in page
  done, _ = diagnose(*asked)
  assert done.code == 1
  assert "no 'answer', which only prediction" in done.text


def test_a_hugging_face_folder_supplies_the_tokenizer(words, tmp_path):
  folder = tmp_path / "hf"
  folder.mkdir()
  write_config(folder, config_lib.preset("tiny"), "float32")
  words.save(folder)
  config, found, name = read_model(str(folder), None)
  assert found.vocab_size == words.vocab_size
  assert name == str(folder)
  assert config.decoder == config_lib.preset("tiny").decoder


def test_errors_in_the_data_are_exit_code_1(data, rows, diagnose):
  """A leaking split is an error; a repeated question is not."""
  other = data / "other.jsonl"
  write_manifest(other, [*rows[:2], rows[0] | {"id": "again"}])
  done, _ = diagnose(other, "--samples", 0)
  assert done.code == 0
  assert "warning: same question twice: other: rows 1" in done.text
  done, page = diagnose(data, other, "--samples", 1, "--no-duplicates")
  assert done.code == 1
  assert "near duplicate │ not searched │ not searched" in done.text
  assert "<td>not searched</td>" in page
  assert "error: image in two splits: simulated" in done.text
  assert "1 error, 1 warning" in done.text
  assert page


def test_names_from_the_data_are_no_markup(data, rows, diagnose):
  """Brackets are rich markup, and escapes control a terminal."""
  row = rows[0] | {
    "task": "[/red]\x1b[2J",
    "id": "\ud800",
    "image": "\x1b]0;[red]gone.png",
  }
  evil = data / "[bold]evil.jsonl"
  evil.write_text(json.dumps(row))
  done, _ = diagnose(evil)
  assert done.code == 1
  assert "\x1b" not in done.out
  assert "[bold]evil" in done.out
  assert "[red]gone.png" in done.out


def test_usage_errors_are_exit_code_2(data, run, tmp_path, call):
  words = run / "tokenizer"
  for arguments, message in (
    ([tmp_path / "missing"], "missing not found"),
    ([data, "--model", "huge"], "unknown model 'huge'"),
    ([data, "--out", tmp_path], "is a folder"),
    ([data, "--samples", -1], "--samples >= 0"),
    ([data, "--max-length", 0], "--max-length >= 1"),
    ([data, "--tokenizer", tmp_path / "none.json"], "tokenizer not found"),
    ([data, "--model", "bench", "--tokenizer", words], "the model's own"),
  ):
    done = call(doctor.main, "--out", tmp_path / "x.html", *arguments)
    assert done.code == 2, message
    assert message in done.err
