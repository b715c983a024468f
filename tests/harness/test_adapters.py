"""Harnesses get the answers of predict; what they cannot get is an error."""

import dataclasses
import functools
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.triplets import read_manifest
from fusar_jax.harness import requests
from fusar_jax.harness.requests import Request, Responder, of_messages
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import predict

TOKENS = 8
KWARGS = {
  "max_new_tokens": TOKENS,
  "until": ["\n\n"],
  "temperature": 0,
  "do_sample": False,
  "top_p": 1.0,
  "num_beams": 1,
}


@pytest.fixture(scope="session")
def docs(manifest):
  """Documents of a harness; also manifest rows."""
  return [
    {
      "image": str(triplet.images[0]),
      "aef": str(triplet.anchors[0]),
      "question": triplet.question,
      "answer": triplet.answer,
    }
    for triplet in read_manifest(manifest)[:3]
  ]


@pytest.fixture(scope="session")
def model(tiny_model, make_hf_folder, docs):
  decoder = dataclasses.replace(tiny_model.decoder, tie_word_embeddings=False)
  config = dataclasses.replace(tiny_model, decoder=decoder)
  texts = [f"system\n{SYSTEM}"]
  texts += [doc[name] for doc in docs for name in ("question", "answer")]
  return make_hf_folder(config, texts * 9, scale=4, tlm_scale=8)


@pytest.fixture(scope="session")
def responder(model):
  """Its model is compiled once for all."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(requests, "load", functools.cache(requests.load))
    yield Responder(str(model), options=PredictionOptions(batch_size=4))


@pytest.fixture(scope="session")
def rows(model, responder, docs, tmp_path_factory):
  """Rows of predictions.jsonl."""
  folder = tmp_path_factory.mktemp("predicted")
  manifest = folder / "manifest.jsonl"
  manifest.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
  options = PredictionOptions(batch_size=4, max_new_tokens=TOKENS)
  assistant = responder.assistant
  file = predict(model, manifest, folder, options, assistant=assistant)
  return [json.loads(line) for line in file.read_text().splitlines()]


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
def chat(model, responder, lmms_eval, docs):
  from fusar_jax.harness.lmms_eval_model import FusarChat

  chat = FusarChat(str(model), batch_size=4)
  chat.task_dict = {"task": {"test": docs}}
  return chat


def test_chat_answers_are_those_of_predict(chat, docs, rows):
  """PIL images, in one call; the end of one request differs."""
  asked = [
    _asked("", _messages, KWARGS, number, "task", "test")
    for number in range(len(docs))
  ]
  stop = rows[0]["prediction_text"][2:4]
  asked.append(
    _asked("", _messages, {**KWARGS, "until": stop}, 0, "task", "test")
  )
  *answers, cut = chat.generate_until(asked)
  expected = [row["prediction_text"].partition("\n\n")[0] for row in rows]
  assert answers == expected
  assert len(set(answers)) > 1
  assert cut == answers[0].partition(stop)[0] != answers[0]


def test_simple_answers_and_log_likelihoods(
  model, responder, lmms_eval, docs, rows, monkeypatch
):
  from fusar_jax.harness.lmms_eval_model import FusarSimple

  simple = FusarSimple(str(model), batch_size=4)
  simple.task_dict = {"task": {"test": docs}}

  def visuals(doc):
    return [Image.open(doc["image"])]

  context = docs[0]["question"]
  at = (visuals, 0, "task", "test")
  (answer,) = simple.generate_until([_asked(context, KWARGS, *at)])
  assert answer == rows[0]["prediction_text"].partition("\n\n")[0]
  words = (" 1", " 2")
  monkeypatch.setattr(Responder, "complete", lambda *_: ["1"])
  one, two, again = simple.loglikelihood(
    [_asked(context, word, *at) for word in (*words, words[0])]
  )
  assert one == again
  assert one[0] != two[0]
  assert max(one[0], two[0]) < 0
  assert (one[1], two[1]) == (True, False)


def test_until_cuts_and_anchors_change_answers(responder, docs, rows):
  doc, text = docs[0], rows[0]["prediction_text"]
  request = Request([doc["image"]], doc["question"], doc["aef"])
  stop = text[len(text) // 2 :][:2]
  (cut,) = responder.generate([request], TOKENS, [stop])
  assert cut == text.partition(stop)[0] != text
  assert rows[0]["truncated"]
  assert responder.complete([request], TOKENS) == [None]
  without = Request([doc["image"]], doc["question"])
  assert responder.generate([without], TOKENS) != [text]
  with np.load(doc["aef"]) as file:
    inline = {name: file[name].tolist() for name in ("features", "positions")}
  again = Request([doc["image"]], doc["question"], inline)
  assert responder.generate([again], TOKENS) == [text]


def test_vlmevalkit_answers_are_those_of_predict(
  model, responder, vlmeval, docs, rows
):
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


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    ({"temperature": 0.7}, "temperature, do_sample"),
    ({"temperature": 1.0, "do_sample": True}, "temperature, do_sample"),
    ({"do_sample": True}, "temperature, do_sample"),
    ({"num_beams": 3}, "num_beams"),
    ({"stop_sequences": ["x"]}, "stop_sequences"),
  ],
)
def test_sampling_beams_and_unknown_settings_are_errors(chat, settings, named):
  request = _asked("", _messages, settings, 0, "task", "test")
  with pytest.raises(ValueError, match=f": {named} not supported.*greedy"):
    chat.generate_until([request])


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"temperature": None, "top_p": None, "num_beams": None, "until": None},
    {"temperature": 0.0, "do_sample": False, "top_p": 1.0, "num_beams": 1},
    {"temperature": 0, "do_sample": True, "top_k": 1, "seed": 0},
    {"temperature": 0.2, "do_sample": False, "image_aspect_ratio": "original"},
  ],
)
def test_settings_of_greedy_answers(lmms_eval, settings):
  from fusar_jax.harness.lmms_eval_model import _settings

  found = _settings({**settings, "max_new_tokens": 16})
  assert found == {
    "max_new_tokens": 16,
    "until": [],
    "repetition_penalty": None,
  }
  found = _settings({**settings, "until": "Q:", "repetition_penalty": 1.2})
  assert (found["until"], found["repetition_penalty"]) == (["Q:"], 1.2)


def test_a_penalty_of_repetitions_reaches_the_options(chat, monkeypatch):
  given = []
  monkeypatch.setattr(
    Responder, "_answer", lambda *_, **changes: given.append(changes) or []
  )
  chat._responder.generate([], TOKENS, repetition_penalty=1.2)
  assert given == [{"max_new_tokens": TOKENS, "repetition_penalty": 1.2}]


def test_chat_models_have_no_log_likelihoods(chat):
  with pytest.raises(NotImplementedError, match="add --force_simple"):
    chat.loglikelihood([])
