"""Harnesses get the answers of predict; what they cannot get is an error."""

import dataclasses
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusar_jax import predict
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.triplets import read_manifest
from fusar_jax.harness.requests import Request, Responder, of_messages
from fusar_jax.inference.prediction import FINISHED
from fusar_jax.simulation.dataset import Plan, simulate

TOKENS = 12
KWARGS = {"max_new_tokens": TOKENS, "temperature": 0, "until": ["\n\n"]}


@pytest.fixture(scope="session")
def triplets(tmp_path_factory):
  folder = tmp_path_factory.mktemp("harness") / "simulated"
  simulate(folder, Plan(2, seed=3, size=112))
  return read_manifest(folder / "manifest.jsonl")[:6]


@pytest.fixture(scope="session")
def model(tiny_model, make_hf_folder, triplets):
  texts = [SYSTEM, *(t.question for t in triplets)]
  texts += [t.answer for t in triplets]
  decoder = dataclasses.replace(tiny_model.decoder, tie_word_embeddings=False)
  config = dataclasses.replace(tiny_model, decoder=decoder)
  return make_hf_folder(config, texts * 9, scale=4, tlm_scale=8)


@pytest.fixture(scope="session")
def rows(model, triplets, tmp_path_factory):
  """Rows of predictions.jsonl."""
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


def _messages(doc):
  image = Image.open(doc["image"])
  return [
    {
      "role": "user",
      "content": [
        {"type": "image", "url": image},
        {"type": "text", "text": doc["question"]},
      ],
    }
  ]


def _asked(*args):
  return types.SimpleNamespace(args=args)


@pytest.fixture(scope="session")
def responder(model):
  return Responder(model)


@pytest.fixture(scope="session")
def chat(model, lmms_eval, docs):
  from fusar_jax.harness.lmms_eval_model import FusarChat

  chat = FusarChat(str(model), batch_size=4)
  chat.task_dict = {"task": {"test": docs}}
  return chat


def test_chat_answers_are_those_of_predict(chat, docs, rows):
  """PIL images, in one call; the limit of one request differs."""
  requests = [
    _asked("", _messages, KWARGS, number, "task", "test")
    for number in range(len(docs))
  ]
  short = {**KWARGS, "max_new_tokens": 2}
  requests.append(_asked("", _messages, short, 0, "task", "test"))
  *answers, cut = chat.generate_until(requests)
  expected = [row["prediction_text"].partition("\n\n")[0] for row in rows]
  assert answers == expected
  assert len(set(answers)) > 1
  assert len(cut) < len(answers[0])


def test_simple_answers_and_log_likelihoods(model, lmms_eval, docs, rows):
  from fusar_jax.harness.lmms_eval_model import FusarSimple

  simple = FusarSimple(str(model), batch_size=4)
  simple.task_dict = {"task": {"test": docs}}

  def visuals(doc):
    return [Image.open(doc["image"])]

  context = docs[0]["question"]
  at = (visuals, 0, "task", "test")
  (answer,) = simple.generate_until([_asked(context, KWARGS, *at)])
  assert answer == rows[0]["prediction_text"].partition("\n\n")[0]
  words = (" ship", " plane")
  ship, plane, again = simple.loglikelihood(
    [_asked(context, word, *at) for word in (*words, words[0])]
  )
  assert ship == again
  assert ship[0] != plane[0]
  assert max(ship[0], plane[0]) < 0
  assert not ship[1]


def test_until_cuts_and_anchors_change_answers(responder, docs, rows):
  doc, text = docs[0], rows[0]["prediction_text"]
  request = Request([doc["image"]], doc["question"], doc["aef"])
  stop = text[len(text) // 2 :][:2]
  (cut,) = responder.generate([request], TOKENS, [stop])
  assert cut == text.partition(stop)[0] != text
  without = Request([doc["image"]], doc["question"])
  assert responder.generate([without], TOKENS) != [text]
  with np.load(doc["aef"]) as file:
    inline = {name: file[name].tolist() for name in ("features", "positions")}
  again = Request([doc["image"]], doc["question"], inline)
  assert responder.generate([again], TOKENS) == [text]


def test_vlmevalkit_answers_are_those_of_predict(model, vlmeval, docs, rows):
  from fusar_jax.harness.vlmevalkit_model import FusarGPT

  folder = Path(docs[0]["aef"]).parent
  kit = FusarGPT(str(model), str(folder), TOKENS)
  message = [
    {"type": "image", "value": docs[0]["image"]},
    {"type": "text", "value": docs[0]["question"]},
  ]
  assert kit.generate_inner(message) == rows[0]["prediction_text"]


def test_a_chat_of_several_turns_becomes_a_dialogue():
  messages = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": [{"type": "image", "url": "a.png"}]},
    {"role": "assistant", "content": "A port."},
    {"role": "user", "content": "Ships?"},
  ]
  request = of_messages(messages, "a.npz")
  assert request.images == ["a.png"]
  assert request.question == "Ships?"
  assert request.history == [{"question": "", "answer": "A port."}]
  assert request.anchors == "a.npz"


@pytest.mark.parametrize(
  ("messages", "error"),
  [
    ([{"role": "system", "content": "Be brief."}], "system prompt is 'Be bri"),
    ([{"role": "assistant", "content": "A"}], "turns of assistant; expected"),
    ([], "turns of nobody"),
    ([{"role": "user", "content": [{"type": "video", "url": 1}]}], "'video'"),
  ],
)
def test_other_chats_are_errors(messages, error):
  with pytest.raises(ValueError, match=error):
    of_messages(messages)


@pytest.mark.parametrize(
  ("request_", "error"),
  [
    (Request([], "Ships?"), "request 1 .'Ships.'. has no image"),
    (Request(["a"], "?", ["b", "c"]), "request 1: 1 images but 2 'aef'"),
    (Request(["a"], "?", {"x": 1}), 'request 1: .*anchors need "features"'),
    (Request(["absent.png"], "?"), "absent.png"),
  ],
)
def test_requests_that_cannot_be_answered(responder, request_, error):
  with pytest.raises((ValueError, FileNotFoundError), match=error):
    responder.generate([request_])


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"num_beams": 3}])
def test_sampling_and_beams_are_errors(chat, settings):
  request = _asked("", _messages, settings, 0, "task", "test")
  with pytest.raises(ValueError, match="answers are greedy"):
    chat.generate_until([request])


def test_chat_models_have_no_log_likelihoods(chat):
  with pytest.raises(NotImplementedError, match="add --force_simple"):
    chat.loglikelihood([])
