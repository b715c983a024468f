"""The model as VLMEvalKit calls it.

Register it where VLMEvalKit looks for models, then `run.py --model fusar_gpt`:

  from functools import partial
  from vlmeval.config import supported_VLM
  from fusar_jax.harness.vlmevalkit_model import FusarGPT
  supported_VLM["fusar_gpt"] = partial(FusarGPT, model_path="runs/stage2")

VLMEvalKit asks one question after another, so nothing is answered together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmeval.vlm.base import BaseModel

from fusar_jax.harness.requests import MAX_NEW_TOKENS, Request, Responder
from fusar_jax.inference.options import PredictionOptions


class FusarGPT(BaseModel):
  """A model of VLMEvalKit.

  Args:
    model_path: run folder, Hugging Face folder or hub id.
    anchors_folder: folder of anchor files, named as the images: 7.npz for
      7.jpg; None: images are unmodulated.
    max_new_tokens: most tokens of an answer.
    options: fields of `PredictionOptions`, such as adapter and dtype.
  """

  INTERLEAVE = True

  def __init__(
    self,
    model_path: str,
    anchors_folder: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    **options: Any,
  ):
    self._responder = Responder(
      model_path, options=PredictionOptions(batch_size=1, **options)
    )
    self._anchors = None if anchors_folder is None else Path(anchors_folder)
    self._max_new_tokens = max_new_tokens

  def generate_inner(
    self, message: Sequence[Mapping[str, str]], dataset: str | None = None
  ) -> str:
    """Returns the answer to images and texts.

    Raises:
      FileNotFoundError: an image has no file in `anchors_folder`.
    """
    images = [m["value"] for m in message if m["type"] == "image"]
    texts = [m["value"] for m in message if m["type"] == "text"]
    anchors = None
    if self._anchors is not None:
      anchors = [self._anchors / f"{Path(i).stem}.npz" for i in images]
    request = Request(images, "\n".join(texts), anchors)
    return self._responder.generate([request], self._max_new_tokens)[0]
