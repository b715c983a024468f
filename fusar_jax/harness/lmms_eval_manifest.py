"""Entry point of lmms-eval: `--model fusar_jax`, loaded when it is chosen."""

from typing import Any


def manifest() -> Any:
  """Returns the `ModelManifest` of the chat and the simple interface."""
  from lmms_eval.models.registry_v2 import ModelManifest

  return ModelManifest(
    model_id="fusar_jax",
    chat_class_path="fusar_jax.harness.lmms_eval_model.FusarChat",
    simple_class_path="fusar_jax.harness.lmms_eval_model.FusarSimple",
  )
