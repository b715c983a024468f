"""Model cards: nothing that others wrote becomes markup or another field."""

import copy

import pytest
import yaml

from fusar_jax.hf import export
from fusar_jax.hf.card_scores import Score, Scores
from fusar_jax.hf.licence_files import Terms
from fusar_jax.hf.model_card import CARD, Publication, write_model_card
from tests.hf.conftest import SMALL, random_params

NASTY = "a\n---\n# Title\n| x | <b>[b](http://b)</b> `c` *d*"
RECORD = {
  "step": 7,
  "base": {"path": NASTY, "sha256": None},
  "data": {
    "train": [
      {"path": "a.jsonl", "dataset": {"source": NASTY, "license": NASTY}}
    ]
  },
}


def _card(folder, **about):
  write_model_card(folder, SMALL, Publication(**about))
  text = (folder / CARD).read_text()
  _, front, body = text.split("---\n", 2)
  return yaml.safe_load(front), body


def test_text_of_others_stays_text(tmp_path):
  row = Score(NASTY, NASTY, 0.5, 0.4, 0.6, 40, NASTY)
  terms = Terms("no")
  front, body = _card(
    tmp_path,
    record=RECORD | {"data": {}},
    scores=Scores(NASTY, NASTY, (row,)),
    terms=terms,
  )
  assert front["license"] == "no"  # unquoted, YAML reads False
  [result] = front["model-index"][0]["results"]
  assert result["task"]["name"] == NASTY
  _, body2 = _card(tmp_path, record=RECORD)
  for text in (body, body2):
    assert "\n---" not in text
    assert "\n# Title" not in text
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "[b](" not in text.replace("\\[b\\](", "")
  [line] = [one for one in body.splitlines() if "0.400 - 0.600" in one]
  assert line.replace("\\|", "").count("|") == 7


@pytest.mark.parametrize(
  ("licence", "stated"),
  [("mit", "mit"), ("CC BY-NC 4.0", None), (None, None)],
)
def test_terms_of_the_data_are_not_hidden_by_the_base_s(
  tmp_path, licence, stated
):
  record = copy.deepcopy(RECORD)
  record["data"]["train"][0]["dataset"]["license"] = licence
  front, body = _card(tmp_path, record=record, terms=Terms("mit"))
  assert front.get("license") == stated
  assert ("these weights: not stated" in body) == (stated is None)


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", None])
def test_an_adapter_s_terms_are_not_hidden_by_the_base_s(tmp_path, licence):
  about = {"terms": Terms("mit"), "applied": Terms(licence)}
  front, body = _card(tmp_path, **about)
  assert "license" not in front
  assert "these weights: not stated" in body
  front, _ = _card(tmp_path, terms=Terms("mit"), applied=Terms("MIT"))
  assert front["license"] == "mit"


def test_few_rows_are_no_result(tmp_path):
  one = Score("counting", "accuracy", 1.0, 1.0, 1.0, 1)
  front, body = _card(tmp_path, scores=Scores("a", "1/1", (one,)))
  assert "model-index" not in front
  assert "| counting | accuracy | 1.000 |" in body
  assert "Scores of fewer than 30 rows show little" in body


def test_an_interrupted_export_leaves_no_folder_without_its_card(
  tmp_path, monkeypatch
):
  def stop(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(export, "write_model_card", stop)
  with pytest.raises(KeyboardInterrupt):
    export.export_merged(tmp_path / "out", SMALL, random_params(SMALL))
  assert not list(tmp_path.iterdir())
  monkeypatch.undo()
  licence = tmp_path / "LICENSE"
  licence.write_text("Terms.\n")
  about = Publication(terms=Terms(None, (licence,)), record=RECORD)
  export.export_merged(
    tmp_path / "out", SMALL, random_params(SMALL), about=about
  )
  assert (tmp_path / "out" / "LICENSE").read_text() == "Terms.\n"
  assert "step: 7" in (tmp_path / "out" / CARD).read_text()
  assert (tmp_path / "out" / "fusar_provenance.json").is_file()
