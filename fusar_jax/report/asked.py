"""What a question asks for, so that a card can show it without its prompt."""

import re
from collections.abc import Mapping

from fusar_jax.tasks import classification

# The questions of this package and of the published prompt.
_OBJECT = re.compile(r"following (?:object|target)s?: *([^.\n]{1,80})\.")
# Longer questions are folded.
_SHORT = 160


def asked_for(
  task: str, question: str, extra: Mapping[str, object]
) -> tuple[str, str]:
  """Returns (name, text) of a line of the card; ("", "") if it is unknown.

  Args:
    task, question: of the row.
    extra: further fields of the manifest's row, such as "class".

  Example:
    >>> asked_for("counting", "Count the following object: ship. Respond", {})
    ('asked for', 'ship')
    >>> asked_for("vqa", "Is this a port?", {})
    ('question', 'Is this a port?')
  """
  if task == "classification" and (names := classification.choices(question)):
    return "choices", ", ".join(names)
  given = extra.get("class")
  if task not in ("vqa", "classification"):
    if isinstance(given, str) and given.strip():
      return "asked for", given.strip()
    if found := _OBJECT.search(question):
      return "asked for", found[1].strip()
  # Captions are asked for by the same question each time.
  if task != "captioning" and len(question) <= _SHORT:
    return "question", question
  return "", ""
