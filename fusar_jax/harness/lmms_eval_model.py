"""The model as lmms-eval 0.7 calls it.

COMMAND:
  python -m lmms_eval --model fusar_jax --model_args pretrained=runs/stage2 \\
      --tasks TASK --include_path FOLDER --batch_size 16

`FusarChat` takes tasks with messages, `FusarSimple` (--force_simple) those with
visuals and text, which are also the only ones with log-likelihoods. A document
may hold AlphaEarth anchors as "aef": the path of an anchor file relative to
`data_root`, or {"features", "positions"}; a list has one per image.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lmms_eval.api.model import lmms

from fusar_jax.harness.requests import (
  MAX_NEW_TOKENS,
  Request,
  Responder,
  of_messages,
)
from fusar_jax.inference.options import PredictionOptions

# Generation settings that a task may hold.
_READ = {
  "do_sample",
  "max_new_tokens",
  "num_beams",
  "repetition_penalty",
  "temperature",
  "until",
}
# They shape samples, or inputs of other models.
_WITHOUT_EFFECT = {"image_aspect_ratio", "seed", "top_k", "top_p", "visual_cot"}


class FusarChat(lmms):
  """Chat interface.

  Args:
    pretrained: run folder, Hugging Face folder or hub id.
    data_root: folder of relative paths in documents.
    batch_size: rows that are answered together.
    device: what the harness passes to every model; JAX_PLATFORMS selects the
      device here.
    max_batch_size: must be None; batches are of `batch_size`.
    options: fields of `PredictionOptions`, such as adapter, legacy_sigma,
      anchors, dtype, quantize, constrain.

  Raises:
    TypeError: an unknown option.
  """

  is_simple = False

  def __init__(
    self,
    pretrained: str,
    data_root: str = ".",
    batch_size: int | str = 16,
    device: str | None = None,
    max_batch_size: int | None = None,
    **options: Any,
  ):
    super().__init__()
    if max_batch_size is not None or not str(batch_size).isdigit():
      raise ValueError(
        f"batch_size {batch_size}, max_batch_size {max_batch_size}: expected a"
        " whole number, and no maximum."
      )
    self._responder = Responder(
      pretrained,
      data_root,
      PredictionOptions(batch_size=int(batch_size), **options),
    )

  def generate_until(self, requests: Sequence[Any]) -> list[str]:
    """Returns the answers, in the order of the requests."""
    answers: list[str] = [""] * len(requests)
    groups: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
      kept = json.dumps(self._settings(request), sort_keys=True)
      groups.setdefault(kept, []).append(place)
    for kept, places in groups.items():
      asked = [self._request(requests[place]) for place in places]
      for place, text in zip(
        places, self._responder.generate(asked, **json.loads(kept)), strict=True
      ):
        answers[place] = text
        self.cache_hook.add_partial(
          "generate_until", requests[place].args[:2], text
        )
    return answers

  def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
    """Unsupported: chat tasks of lmms-eval have no log-likelihoods."""
    raise NotImplementedError(
      "lmms-eval asks chat models for no log-likelihoods; add --force_simple."
    )

  def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
    """Unsupported: rounds that depend on the model's answers."""
    raise NotImplementedError(
      "tasks of several rounds are not supported; the harness has others."
    )

  def _settings(self, request: Any) -> dict[str, Any]:
    return _settings(request.args[2])

  def _request(self, request: Any) -> Request:
    _, to_messages, _, number, task, split = request.args
    doc = self.task_dict[task][split][number]
    return of_messages(to_messages(doc), _anchors(doc))


class FusarSimple(FusarChat):
  """Interface of visuals and text, with log-likelihoods."""

  is_simple = True

  def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
    """Returns (log-likelihood of the continuation, whether it is greedy).

    The choices of a document are read after one prefill. White space around a
    continuation is dropped: an answer begins on a line of its own.
    """
    if not requests:
      return []
    rows: dict[tuple, list[int]] = {}
    for place, request in enumerate(requests):
      context, _, _, number, task, split = request.args
      rows.setdefault((context, number, task, split), []).append(place)
    asked = [self._request(requests[places[0]]) for places in rows.values()]
    texts = [
      [self._continuation(requests[place]) for place in places]
      for places in rows.values()
    ]
    found = self._responder.log_likelihoods(asked, texts)
    # A longer answer equals no continuation: a token has a byte at least.
    longest = max(len(word.encode()) for words in texts for word in words)
    greedy = self._responder.complete(asked, longest + 2)
    results: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
    for places, words, values, answer in zip(
      rows.values(), texts, found, greedy, strict=True
    ):
      for place, word, value in zip(places, words, values, strict=True):
        results[place] = value, word == answer
    return results

  def _doc(self, request: Any) -> Mapping[str, Any]:
    *_, number, task, split = request.args
    return self.task_dict[task][split][number]

  def _continuation(self, request: Any) -> str:
    text = request.args[1]
    return str(text(self._doc(request)) if callable(text) else text).strip()

  def _settings(self, request: Any) -> dict[str, Any]:
    return _settings(request.args[1])

  def _request(self, request: Any) -> Request:
    context, _, to_visual, *_ = request.args
    doc = self._doc(request)
    return Request(list(to_visual(doc) or ()), context, _anchors(doc))


def _settings(kwargs: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the arguments of `Responder.generate`.

  Example, what most tasks of lmms-eval hold:
    max_new_tokens 16, temperature 0, do_sample False, top_p 1.0, num_beams 1
    -> max_new_tokens 16, until []

  Raises:
    ValueError: sampling, beams, or a setting that is not known.
  """
  temperature, samples = kwargs.get("temperature"), kwargs.get("do_sample")
  # transformers samples by do_sample, lmms-eval's own models by temperature.
  sampled = samples is not False and bool(temperature)
  if sampled or (samples and temperature is None):
    wrong = ["temperature", "do_sample"]
  else:
    wrong = [] if (kwargs.get("num_beams") or 1) == 1 else ["num_beams"]
  wrong += sorted(kwargs.keys() - _READ - _WITHOUT_EFFECT)
  if wrong:
    raise ValueError(
      f"generation_kwargs {dict(kwargs)}: {', '.join(wrong)} not supported."
      " Answers are greedy, as predict's: set temperature=0, do_sample=False"
      f" and num_beams=1 (--gen_kwargs); known: {', '.join(sorted(_READ))}."
    )
  until = kwargs.get("until") or []
  return {
    "max_new_tokens": int(kwargs.get("max_new_tokens") or MAX_NEW_TOKENS),
    "until": [until] if isinstance(until, str) else list(until),
    "repetition_penalty": kwargs.get("repetition_penalty"),
  }


def _anchors(doc: Any) -> Any:
  return doc.get("aef") if isinstance(doc, Mapping) else None
