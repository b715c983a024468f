"""A nested dict of parameters, and its flat form {"a/b/c": leaf}.

Paths such as "model/layers/self_attn/q_proj/lora_a" are how rules, checkpoints
and the Hugging Face name table speak of parameters.
"""

from collections.abc import Mapping
from typing import Any

from flax import traverse_util


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {prefix + "a/b/c": leaf} of nested dicts, in the order of paths."""
  flat = traverse_util.flatten_dict(dict(tree), sep="/")
  return {prefix + path: flat[path] for path in sorted(flat)}


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `flatten`."""
  return traverse_util.unflatten_dict(dict(flat), sep="/")
