"""The command `doctor`: printed statistics, HTML page, exit code."""

import dataclasses
import json

import pytest
from rich.console import Console

from fusar_jax import config as config_lib
from fusar_jax import doctor
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.datasets.validation import inspect
from fusar_jax.hf.config_json import write_config
from fusar_jax.simulation.dataset import Plan, simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "simulated"
  simulate(folder, Plan(3, seed=3, size=112))
  return folder


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


def call(*arguments, out):
  return doctor.main([*map(str, arguments), "--out", str(out)])


def usage(capsys, *arguments, out="x.html"):
  with pytest.raises(SystemExit) as stop:
    call(*arguments, out=out)
  assert stop.value.code == 2
  return capsys.readouterr().err


def test_a_run_brings_size_and_tokenizer(data, run, tmp_path, capsys):
  page = tmp_path / "page.html"
  assert call(data, "--model", run, "--samples", 3, out=page) == 0
  told = capsys.readouterr().out
  assert "0 errors, 0 warnings" in told
  assert "56 × 56" in told
  assert "tokens a row" in told
  assert str(page) in told
  text = page.read_text()
  assert text.count("<article>") == 3
  assert "112 × 112 seen at 56 × 56" in text
  assert '<b class="learned"' in text
  assert "<circle" in text


def test_rows_to_predict(data, run, tmp_path, capsys):
  """The same dataset without answers."""
  rows = map(json.loads, (data / "manifest.jsonl").open(encoding="utf-8"))
  left_out = ("answer", "boxes", "labels")
  bare = [{k: v for k, v in r.items() if k not in left_out} for r in rows]
  write_manifest(data / "bare.jsonl", bare)
  page = tmp_path / "page.html"
  asked = (data / "bare.jsonl", "--model", run, "--samples", 2)
  assert call(*asked, "--for", "predict", out=page) == 0
  told = capsys.readouterr().out
  assert "tokens a prompt" in told
  assert "longer than 4096" in told
  assert "0 errors, 0 warnings" in told
  text = page.read_text()
  assert "tokens of prompt" in text
  assert '<b class="learned"' not in text
  assert call(*asked, out=page) == 1
  assert "no 'answer', which only prediction" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_page(data, run, tmp_path, capsys):
  pages = [tmp_path / f"{k}.html" for k in range(3)]
  for page, seed in zip(pages, (4, 4, 5)):
    call(data, "--model", run, "--samples", 2, "--seed", seed, out=page)
  first, second, other = (page.read_bytes() for page in pages)
  assert first == second != other


def test_a_preset_without_a_tokenizer_says_so(data, tmp_path, capsys):
  page = tmp_path / "page.html"
  assert call(data, "--samples", 1, out=page) == 0
  told = capsys.readouterr().out
  assert "need a tokenizer" in told
  assert "504 × 504" in told
  assert "324" in told
  assert "tokens a row (" not in told


def test_a_tokenizer_of_another_model_is_refused(data, run, capsys):
  words = run / "tokenizer"
  told = usage(capsys, data, "--model", "bench", "--tokenizer", words)
  assert "give the model's own" in told


def test_a_hugging_face_folder(data, words, tmp_path, capsys):
  folder = tmp_path / "hf"
  folder.mkdir()
  write_config(folder, config_lib.preset("tiny"), "float32")
  words.save(folder)
  config, found, name = doctor.read_model(str(folder), None)
  assert found.vocab_size == words.vocab_size
  assert name == str(folder)
  assert config.decoder == config_lib.preset("tiny").decoder


def test_errors_are_exit_code_1(data, tmp_path, capsys):
  """A leaking split is an error; a repeated question is not."""
  rows = [
    json.loads(line)
    for line in (data / "manifest.jsonl").open(encoding="utf-8")
  ]
  doubled = [*rows[:2], rows[0] | {"id": "again"}]
  other = data / "other.jsonl"
  write_manifest(other, doubled)
  page = tmp_path / "page.html"
  assert call(other, "--samples", 0, out=page) == 0
  told = capsys.readouterr().out
  assert "warning: same question twice: other: rows 1" in told
  assert call(data, other, "--samples", 1, out=page) == 1
  told = capsys.readouterr().out
  assert "error: image in two splits: simulated" in told
  assert "1 error, 1 warning" in told
  assert page.is_file()


def test_many_problems_of_one_kind_are_cut_short(data, tmp_path):
  lines = ["{"] * 30
  (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
  found = inspect([tmp_path], config_lib.preset("tiny"))
  with (tmp_path / "told").open("w+", encoding="utf-8") as file:
    doctor.tell(found, Console(file=file, width=80))
    file.seek(0)
    told = file.read()
  assert told.count("error: bad row: ") == 11
  assert "error: bad row: ... and 20 more" in told
  assert "30 errors" in told


def test_names_from_the_data_are_no_markup(data, tmp_path, capsys):
  """Brackets are rich markup, and escapes control a terminal."""
  rows = [json.loads((data / "manifest.jsonl").open().readline())]
  rows[0]["task"] = "[/red]\x1b[2J"
  rows[0]["id"] = "\ud800"
  rows[0]["image"] = "\x1b]0;[red]gone.png"
  evil = data / "[bold]evil.jsonl"
  evil.write_text("\n".join(map(json.dumps, rows)))
  assert call(evil, out=tmp_path / "page.html") == 1
  told = capsys.readouterr().out
  assert "\x1b" not in told
  assert "[bold]evil" in told
  assert "[red]gone.png" in told


def test_usage(data, run, tmp_path, capsys):
  missing = tmp_path / "missing"
  assert "missing not found" in usage(capsys, missing)
  assert "unknown model 'huge'" in usage(capsys, data, "--model", "huge")
  assert "is a folder" in usage(capsys, data, out=tmp_path)
  assert "--samples >= 0" in usage(capsys, data, "--samples", "-1")
  assert "--max-length >= 1" in usage(capsys, data, "--max-length", "0")
  told = usage(capsys, data, "--tokenizer", tmp_path / "none.json")
  assert "tokenizer not found" in told
