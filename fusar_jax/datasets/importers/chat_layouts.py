"""Records of vision-language data sets, in several layouts, as dialogues.

LLaVA      {"image": "a.jpg", "conversations": [
             {"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}
ms-swift   {"images": ["a.jpg"], "messages": [
             {"role": "user", "content": ...}, {"role": "assistant", ...}]}
           {"query": ..., "response": ..., "history": [[..., ...]],
            "images": ["a.jpg"]}
           {"instruction": ..., "input": ..., "output": ..., "images": [...]}
OpenAI     {"messages": [{"role": "user", "content": [
             {"type": "text", "text": ...},
             {"type": "image_url", "image_url": {"url": "data:image/..."}}]}]}
EarthDial  {"image": "a.jpg", "question": ..., "groundtruth": ...}
GeoChat    {"image": "a.jpg", "question_id": 1, "text": ...,
            "ground_truth": ...}

"conversations" may be a JSON string, as in EarthDial's shards. Of a record that
holds a true answer under its own name, "answer" is the answer of a model, as in
EarthDial's result files, and is not read.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fusar_jax.io import strict_json
from fusar_jax.tasks import predictions

IMAGE = "<image>"
# Keys of a true answer, the most specific first.
TRUTHS = ("groundtruth", "ground_truth", "gt_bbox", "annotation")
_SPEAKERS = {
  "human": "user",
  "user": "user",
  "gpt": "assistant",
  "assistant": "assistant",
  "system": "system",
}
# What a row cannot express.
_UNSUPPORTED = (
  "rejected_messages",
  "rejected_response",
  "rejected_images",
  "videos",
  "video",
  "audios",
  "audio",
  "tools",
)
_CALLS = ("tool_calls", "function_call")
_CAPTION = re.compile(r"caption\d+")
_TYPES = ("question_type", "vqa_type", "type", "task_type", "category")


@dataclasses.dataclass(frozen=True)
class Said:
  """One message: who speaks, what, and whether it is marked for the loss."""

  role: str
  text: str
  loss: bool | None = None


@dataclasses.dataclass(frozen=True)
class Record:
  """A record of any layout.

  Attributes:
    images: paths or data URIs, in the order of their "<image>".
    messages: in order; images are "<image>" in the text of users.
    objects: ms-swift's "objects", or None.
    references: all true captions, if there are several.
    task, question_type: as the record names them, or None.
    identity: its id, or None.
  """

  images: tuple[str, ...]
  messages: tuple[Said, ...]
  objects: Mapping | None = None
  references: tuple[str, ...] = ()
  task: str | None = None
  question_type: str | None = None
  identity: str | int | None = None


def read_record(record: Any) -> Record:
  """Returns a record; its messages are not yet checked to alternate.

  Raises:
    ValueError: an unknown layout, or what a row cannot express (preference
      pairs, videos, sounds, tools, images in answers).
  """
  if not isinstance(record, Mapping):
    raise ValueError(f"expected an object, got {type(record).__name__}")
  for key in _UNSUPPORTED:
    if record.get(key):
      raise ValueError(
        f"{key!r}: preference pairs, media other than images, and tools are not"
        " supported"
      )
  images = list(_names(record))
  messages, references = _messages(record, images)
  if any(IMAGE in m.text for m in messages if m.role != "user"):
    raise ValueError("an image in a message that is not the user's")
  objects = record.get("objects")
  if objects is not None and not isinstance(objects, Mapping):
    raise ValueError(f"'objects' must be an object, got {objects!r:.60}")
  identity = record.get("id", record.get("question_id"))
  known = isinstance(identity, (str, int)) and not isinstance(identity, bool)
  return Record(
    images=tuple(images),
    messages=tuple(messages),
    objects=objects,
    references=references
    or predictions.as_references(record.get("references")),
    task=_text_or_none(record, "task"),
    question_type=next(
      (t for key in _TYPES if (t := _text_or_none(record, key))), None
    ),
    identity=identity if known else None,
  )


def _messages(
  record: Mapping, images: list[str]
) -> tuple[list[Said], tuple[str, ...]]:
  """Returns (messages, references); adds images within messages."""
  turns = record.get("messages", record.get("conversations"))
  if isinstance(turns, str):
    turns = strict_json.parse(turns)
  if isinstance(turns, list):
    declared = len(images)
    found = [_message(turn, images) for turn in turns]
    if declared and len(images) > declared:
      raise ValueError("images both in messages and in a field of their own")
    return found, ()
  if turns is not None:
    raise ValueError(f"messages must be a list, got {turns!r:.60}")
  if "query" in record or "instruction" in record:
    return list(_query(record)), ()
  question = record.get("question", record.get("text"))
  if isinstance(question, str):
    return _question(record, question)
  raise ValueError(
    'no "messages", "conversations", "query", "instruction" or "question"'
  )


def _question(record, question) -> tuple[list[Said], tuple[str, ...]]:
  """EarthDial, GeoChat: a question with its truth."""
  # EarthDial writes some line feeds as two characters.
  asked = Said("user", question.replace("\\n", "\n"))
  truths = [record[key] for key in TRUTHS if record.get(key) not in (None, "")]
  numbered = sorted(filter(_CAPTION.fullmatch, record), key=_number)
  captions = [record[key] for key in numbered if record[key] not in (None, "")]
  if not truths and not captions and "answer" in record:
    truths = [record["answer"]]
  answers = truths[:1] or captions
  if not answers:
    return [asked], ()
  said = [a if isinstance(a, str) else None for a in answers]
  if isinstance(answers[0], int) and not isinstance(answers[0], bool):
    said = [str(answers[0])]
  texts = [text.strip() for text in said if text is not None]
  if len(texts) < len(said) or not texts[0]:
    raise ValueError(f"the true answer must be text, got {answers[0]!r:.60}")
  references = tuple(texts) if len(texts) > 1 else ()
  return [asked, Said("assistant", texts[0])], references


def _number(key: str) -> int:
  return int(key.removeprefix("caption"))


def _query(record) -> Iterator[Said]:
  """ms-swift's older layout, and that of instructions."""
  if isinstance(system := record.get("system"), str) and system:
    yield Said("system", system)
  history = record.get("history") or []
  if not isinstance(history, list):
    raise ValueError(f"'history' must be a list, got {history!r:.60}")
  for pair in history:
    if not isinstance(pair, list) or len(pair) != 2:
      raise ValueError(
        f"'history' must hold [question, answer], got {pair!r:.60}"
      )
    yield Said("user", _text(pair[0], "a question of 'history'"))
    yield Said("assistant", _text(pair[1], "an answer of 'history'"))
  if "query" in record:
    asked, answer = record["query"], record.get("response")
  else:
    asked, answer = record["instruction"], record.get("output")
    if more := record.get("input"):
      asked = f"{_text(asked, 'instruction')}\n{_text(more, 'input')}"
  yield Said("user", _text(asked, "the question"))
  if answer is not None:
    yield Said("assistant", _text(answer, "the answer"))


def _message(turn, images: list[str]) -> Said:
  """Returns a message; appends the images of its content list."""
  if not isinstance(turn, Mapping):
    raise ValueError(f"a message is {type(turn).__name__}, expected an object")
  if any(turn.get(key) for key in _CALLS):
    raise ValueError("calls of tools are not supported")
  speaker = turn.get("from", turn.get("role"))
  if not isinstance(speaker, str) or speaker not in _SPEAKERS:
    raise ValueError(
      f"speaker {speaker!r:.40} is none of {', '.join(_SPEAKERS)}"
    )
  loss = turn.get("loss")
  if loss is not None and not isinstance(loss, bool):
    raise ValueError(f'"loss" must be true or false, got {loss!r:.40}')
  content = turn.get("value", turn.get("content"))
  if isinstance(content, list):
    content = "".join(_part(part, images) for part in content)
  if not isinstance(content, str) or not content.strip():
    raise ValueError(f"message of {speaker} has no text: {content!r:.40}")
  return Said(_SPEAKERS[speaker], content, loss)


def _part(part, images: list[str]) -> str:
  """Returns the text of a part of a content list."""
  kind = part.get("type") if isinstance(part, Mapping) else None
  if kind == "text" and isinstance(part.get("text"), str):
    return part["text"]
  if kind in ("image_url", "image"):
    source = part.get("image_url", part.get("image"))
    if isinstance(source, Mapping):
      source = source.get("url")
    if isinstance(source, str) and source:
      images.append(source)
      return IMAGE
  raise ValueError(
    'a content list holds {"type": "text", "text"} and {"type": "image_url",'
    f' "image_url"}}, got {part!r:.60}'
  )


def _names(record) -> Iterator[str]:
  both = [key for key in ("image", "images") if record.get(key) is not None]
  if len(both) > 1:
    raise ValueError("both 'image' and 'images'; give one")
  value = record[both[0]] if both else []
  for name in value if isinstance(value, list) else [value]:
    if isinstance(name, Mapping):
      name = name.get("path")
    if not isinstance(name, str) or not name:
      raise ValueError(f"{both[0]!r} must name files, got {value!r:.60}")
    yield name


def _text(value, what: str) -> str:
  if not isinstance(value, str) or not value.strip():
    raise ValueError(f"{what} has no text: {value!r:.40}")
  return value


def _text_or_none(record, key: str) -> str | None:
  value = record.get(key)
  return value if isinstance(value, str) and value else None
