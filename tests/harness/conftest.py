"""A random model with TLM, rows with anchors, and predict's answers to them."""

import importlib.util
import json
import sys
import types

import pytest

from fusar_jax import predict
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.triplets import read_manifest
from fusar_jax.inference.prediction import FINISHED
from fusar_jax.simulation.dataset import Plan, simulate

# As predict of `rows` below.
TOKENS = 12


@pytest.fixture(scope="session")
def triplets(tmp_path_factory):
  folder = tmp_path_factory.mktemp("harness") / "simulated"
  simulate(folder, Plan(2, seed=3, size=112))
  return read_manifest(folder / "manifest.jsonl")[:6]


@pytest.fixture(scope="session")
def model(tiny_model, make_hf_folder, triplets):
  texts = [SYSTEM, *(t.question for t in triplets)]
  texts += [t.answer for t in triplets]
  return make_hf_folder(tiny_model, texts * 9, scale=4, tlm_scale=8)


@pytest.fixture(scope="session")
def rows(model, triplets, tmp_path_factory):
  """Rows of predictions.jsonl; no anchors in the last."""
  folder = tmp_path_factory.mktemp("predicted")
  manifest = folder / "manifest.jsonl"
  manifest.write_text("".join(json.dumps(as_doc(t)) + "\n" for t in triplets))
  flags = ("--batch-size", "4", "--max-new-tokens", str(TOKENS))
  arguments = ("--model", model, "--data", manifest, "--out", folder, *flags)
  assert predict.main(list(map(str, arguments))) == 0
  lines = (folder / FINISHED).read_text().splitlines()
  return [json.loads(line) for line in lines]


def as_doc(triplet):
  """A document of a harness; also a manifest row."""
  return {
    "image": str(triplet.images[0]),
    "aef": None if triplet.anchors[0] is None else str(triplet.anchors[0]),
    "question": triplet.question,
    "answer": triplet.answer,
  }


@pytest.fixture(scope="session")
def docs(triplets):
  return [as_doc(triplet) for triplet in triplets]


@pytest.fixture(scope="session")
def lmms_eval():
  """lmms-eval's base class; a double of its interface if it is absent."""
  if importlib.util.find_spec("lmms_eval") is None:
    model = types.ModuleType("lmms_eval.api.model")

    class lmms:
      is_simple = True

      def __init__(self):
        hook = types.SimpleNamespace(add_partial=lambda *_: None)
        self.cache_hook, self.task_dict = hook, {}

    model.lmms = lmms
    for name in ("lmms_eval", "lmms_eval.api"):
      sys.modules[name] = types.ModuleType(name)
    sys.modules[model.__name__] = model


@pytest.fixture(scope="session")
def vlmeval():
  """VLMEvalKit's base class, by its interface."""
  base = types.ModuleType("vlmeval.vlm.base")
  base.BaseModel = type("BaseModel", (), {})
  for name in ("vlmeval", "vlmeval.vlm"):
    sys.modules[name] = types.ModuleType(name)
  sys.modules[base.__name__] = base
