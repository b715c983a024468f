"""Ordered regex rules over parameter paths; trainable/frozen partition.

A rule list is [(regex, value), ...]. A regex must match a full path such as
"model/layers/self_attn/q_proj/lora_a"; the first match wins. A parameter
without a rule and a rule that applies to no parameter are errors, listed by
name.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fusar_jax.hf.coverage import Differences
from fusar_jax.model.paths import flatten, unflatten

Params = dict[str, Any]
Rules = Sequence[tuple[str, Any]]

CATCH_ALL = ".*"


def match(paths: Iterable[str], rules: Rules, what: str) -> dict[str, Any]:
  """Returns {path: value of the first rule that matches the full path}.

  Args:
    paths: parameter paths.
    rules: ordered (regex, value).
    what: name of the rule list, for messages ("config.trainable").

  Raises:
    ValueError: a path has no rule, a rule applies to no path (or earlier rules
      shadow it; a final `.*` is exempt), or a regex is invalid. One message
      lists all path and rule problems.

  Example:
    >>> rules = [("tlm/.*", True), (".*", False)]
    >>> match(["lm_head/kernel", "tlm/mlp_0/bias"], rules, "config.trainable")
    {'lm_head/kernel': False, 'tlm/mlp_0/bias': True}
  """
  patterns = [compiled(regex, what) for regex, _ in rules]
  paths = list(paths)
  decided = {}
  used = [False] * len(rules)
  for path in paths:
    for i, regex in enumerate(patterns):
      if regex.fullmatch(path):
        decided[path] = rules[i][1]
        used[i] = True
        break
  differences = Differences()
  for path in paths:
    if path not in decided:
      differences.add("missing", path, "no rule for it")
  for i, (regex, _) in enumerate(rules):
    spare = i == len(rules) - 1 and regex == CATCH_ALL
    if used[i] or spare:
      continue
    shadowed = any(map(patterns[i].fullmatch, paths))
    why = "shadowed by earlier rules" if shadowed else "matches no parameter"
    differences.add("unexpected", repr(regex), f"(rule {i}) {why}")
  if differences:
    raise ValueError(
      f"{what}: rules and parameters do not fit.\n{differences}\n"
      "Rules are tried in order and must match the full path."
    )
  return decided


def partition(
  params: Params, rules: Rules, what: str = "config.trainable"
) -> tuple[Params, Params]:
  """Splits parameters into (trainable, frozen) by rules with bool values.

  Raises:
    ValueError: as `match`, or nothing is trainable.
  """
  flat = flatten(params)
  decided = match(flat, rules, what)
  trainable = {path: leaf for path, leaf in flat.items() if decided[path]}
  frozen = {path: leaf for path, leaf in flat.items() if not decided[path]}
  if not trainable:
    raise ValueError(f"{what}: no parameter is trainable.")
  return unflatten(trainable), unflatten(frozen)


def merge(trainable: Params, frozen: Params) -> Params:
  """Returns the union of two disjoint nested dicts; inverse of `partition`.

  Raises:
    ValueError: a parameter is in both.
  """
  ours, theirs = flatten(trainable), flatten(frozen)
  both = sorted(set(ours) & set(theirs))
  if both:
    raise ValueError(f"parameters both trainable and frozen: {both}.")
  return unflatten(ours | theirs)


def compiled(regex: str, what: str) -> re.Pattern:
  """Compiles the regex of a rule; raises ValueError if it is invalid."""
  try:
    return re.compile(regex)
  except re.error as error:
    raise ValueError(f"{what}: broken regex {regex!r}: {error}.") from None
