"""A task of lmms-eval, from its YAML to its score: `make harness`."""

import importlib.util
import json
import os

import pytest

from fusar_jax import predict
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.triplets import read_manifest
from fusar_jax.inference.prediction import FINISHED
from fusar_jax.simulation.dataset import Plan, simulate

TASK = """
task: fusar_simulated
dataset_path: json
dataset_kwargs: {data_files: {test: "%s"}}
test_split: test
output_type: generate_until
doc_to_messages: !function functions.messages
doc_to_visual: !function functions.visuals
doc_to_text: "{{question}}"
doc_to_target: answer
process_results: !function functions.scores
generation_kwargs: {max_new_tokens: 12, temperature: 0}
metric_list:
  - {metric: same, aggregation: mean, higher_is_better: true}
"""
FUNCTIONS = """
def visuals(doc):
  return [doc["image"]]


def messages(doc):
  image = {"type": "image", "url": doc["image"]}
  text = {"type": "text", "text": doc["question"]}
  return [{"role": "user", "content": [image, text]}]


def scores(doc, results):
  return {"same": float(results[0] == doc["predicted"].strip())}
"""


@pytest.fixture(autouse=True)
def installed():
  if importlib.util.find_spec("lmms_eval") is None:
    reason = "lmms-eval is not installed: make harness"
    if os.environ.get("FUSAR_REQUIRE_HARNESS") == "1":
      pytest.fail(reason)
    pytest.skip(reason)


@pytest.mark.slow
def test_its_answers_are_those_of_predict(tiny_model, make_hf_folder, tmp_path):
  """The score of a document is 1 if the answer is that of predict."""
  simulate(tmp_path / "data", Plan(2, seed=3, size=112))
  manifest = tmp_path / "data/manifest.jsonl"
  triplets = read_manifest(manifest)
  texts = [SYSTEM, *(text for t in triplets for text in (t.question, t.answer))]
  model = make_hf_folder(tiny_model, texts * 9, scale=4, tlm_scale=8)
  limits = ("--max-new-tokens", "12", "--batch-size", "4")
  arguments = ("--model", model, "--data", manifest, "--out", tmp_path)
  assert predict.main([*map(str, arguments), *limits]) == 0
  lines = (tmp_path / FINISHED).read_text().splitlines()
  docs = [
    {
      "image": str(triplet.images[0]),
      "aef": f"anchors/{triplet.anchors[0].name}",
      "question": triplet.question,
      "answer": triplet.answer,
      "predicted": json.loads(line)["prediction_text"],
    }
    for triplet, line in zip(triplets, lines, strict=True)
  ]
  rows = tmp_path / "docs.jsonl"
  rows.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
  folder = tmp_path / "tasks"
  folder.mkdir()
  (folder / "task.yaml").write_text(TASK % rows)
  (folder / "functions.py").write_text(FUNCTIONS)

  from lmms_eval import evaluator
  from lmms_eval.tasks import TaskManager

  found = evaluator.simple_evaluate(
    model="fusar_jax",
    model_args=f"pretrained={model},data_root={tmp_path / 'data'}",
    tasks=["fusar_simulated"],
    batch_size=4,
    task_manager=TaskManager(include_path=str(folder), model_name="fusar_jax"),
  )
  assert found["results"]["fusar_simulated"]["same,none"] == 1.0
  assert found["n-samples"]["fusar_simulated"]["effective"] == len(docs)
