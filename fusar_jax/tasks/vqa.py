"""Visual question answering: short answers, checked without a judge.

Four kinds of answers, by which scores are reported:

  option   the question lists options "A. ...", "B. ..."; a letter is expected,
           and the text of the option is accepted
  yes_no   yes or no
  number   one number, in digits or words
  text     a word or short phrase

The kind of a row follows from its question and its true answer. Published data
sets fix neither prompt nor format; `question` appends the instructions of this
package to a question of any data set.
"""

import dataclasses
import decimal
import re
import string
import unicodedata
from collections.abc import Mapping, Sequence

from fusar_jax.tasks import counting

KINDS = ("option", "yes_no", "number", "text")
INSTRUCTIONS = {
  "option": "Respond with the letter of the option only.",
  "yes_no": "Respond with yes or no only.",
  "number": "Respond with a number only.",
  "text": "Respond with a word or short phrase only.",
}
LETTERS = string.ascii_uppercase

_MARK = re.compile(r"(?<!\w)\(?([A-Z])[.):](?=\s)")
# Ends of an option: its line, or the gap to what follows it on the line.
_END = re.compile(r"\n|\s{3,}")
_YES_NO = re.compile(r"\b(yes|no)\b")
_ASKS_YES_NO = re.compile(r"\byes or no\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,30}(?:,\d{3})*(?:\.\d{1,30})?(?!\w)")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
# A hyphen joins words, or is the sign of a number.
_JOINT = re.compile(r"[_/]|-(?!\d)|(?<=\w)-")
_PUNCTUATION = re.compile(r"[.,](?!\d)|[^\w\s.,%-]")
# Texts that `counting` reads as numbers.
_NO_NUMBERS = {"none", "no", "single"}
# A letter at the start, as in "D", "(D)" and "D. golf course", or one that is
# announced. "A golf course" begins with an article.
_LETTER = re.compile(
  r"\s*(?:(?i:option)\s+)?\(?([A-Za-z])(?:[.):,]|\s*$)"
  r"|.*?\b(?i:answer|option)(?:\s+is)?:?\s+\(?([A-Z])(?:[.):,\s]|$)",
  re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class Reply:
  """An answer in the form in which it is compared.

  Attributes:
    value: a letter, "yes" or "no", a number in plain digits, or a normal text;
      "" on error.
    error: why the answer has no value, or None.
  """

  value: str
  error: str | None = None


def question(text: str, kind: str = "text", options: Sequence[str] = ()) -> str:
  """Returns a question with its options and the form of its answer.

  Args:
    text: the question of the data set.
    kind: one of KINDS; "option" if there are options.
    options: texts of at least two options, which get the letters.

  Raises:
    ValueError: an unknown kind, or one option, or more than letters.

  Example:
    >>> print(question("What is shown?", "option", ["a lake", "a port"]))
    What is shown?
    A. a lake
    B. a port
    Respond with the letter of the option only.
  """
  if options:
    kind = "option"
  if kind not in KINDS or (
    kind == "option" and not 2 <= len(options) <= len(LETTERS)
  ):
    raise ValueError(
      f"expected one of {', '.join(KINDS)}, and 2 to {len(LETTERS)} options for"
      f' "option"; got {kind!r} and {len(options)} options.'
    )
  listed = [f"{letter}. {name}" for letter, name in zip(LETTERS, options)]
  return "\n".join([text.strip(), *listed, INSTRUCTIONS[kind]])


def options(question_text: str) -> dict[str, str]:
  """Returns letter -> text of the options that a question lists.

  Letters run from A without a gap; fewer than two are no options.

  Example:
    >>> options("Which one? A. race track   B. golf course")
    {'A': 'race track', 'B': 'golf course'}
  """
  chain = []
  for mark in _MARK.finditer(question_text):
    if mark[1] == LETTERS[len(chain) % len(LETTERS)]:
      chain.append(mark)
    elif mark[1] == "A" and len(chain) == 1:
      # The last "A." before "B.", as in "Figure A. Options: A. x B. y".
      chain = [mark]
  if not 2 <= len(chain) <= len(LETTERS):
    return {}
  ends = [mark.start() for mark in chain[1:]] + [len(question_text)]
  found = {}
  for mark, end in zip(chain, ends):
    text = question_text[mark.end() : end].strip()
    found[mark[1]] = _END.split(text, maxsplit=1)[0].strip(" ;,")
  return found


def choices(question_text: str) -> tuple[str, ...]:
  """Returns the answers that a question allows, possibly none.

  The letters of its options, or yes and no.
  """
  if listed := options(question_text):
    return tuple(listed)
  return ("yes", "no") if _ASKS_YES_NO.search(question_text) else ()


def kind_of(question_text: str, truth: str) -> str:
  """Returns the kind of a row, one of KINDS.

  A question with options whose true answer is none of them is a "text".
  """
  listed = options(question_text)
  if listed and parse(truth, "option", listed).error is None:
    return "option"
  if normal(truth) in ("yes", "no"):
    return "yes_no"
  if _NUMBER.fullmatch(truth.strip().rstrip(".")) or _is_number_word(truth):
    return "number"
  return "text"


def _is_number_word(text: str) -> bool:
  word = normal(text)
  if len(word.split()) > 1 or word in _NO_NUMBERS:
    return False
  return counting.parse(word).rule == "words"


def normal(text: str) -> str:
  """Returns a text without case, punctuation and articles.

  Underscores, hyphens and slashes are spaces; decimal points and thousands
  separators stay.

  Example:
    >>> normal("The Golf_Course."), normal("12.5 %")
    ('golf course', '12.5 %')
  """
  text = unicodedata.normalize("NFKC", text).casefold()
  text = _PUNCTUATION.sub(" ", _JOINT.sub(" ", text))
  words = text.split()
  # A text that consists of articles is the letter of an option.
  kept = [word for word in words if not _ARTICLE.fullmatch(word)]
  return " ".join(kept or words)


def parse(text: str, kind: str, listed: Mapping[str, str] = {}) -> Reply:
  """Parses an answer; never raises.

  Args:
    text: the answer.
    kind: one of KINDS.
    listed: letter -> text of the options, see `options`.

  Example:
    >>> parse("D. golf course", "option", {"A": "lake", "D": "golf course"})
    Reply(value='D', error=None)
    >>> parse("There are no ships.", "yes_no").value
    'no'
    >>> parse("about twelve", "number").value
    '12'
  """
  if not normal(text):
    return Reply("", "the answer is empty")
  if kind == "option":
    return _option(text, listed)
  if kind == "yes_no":
    return _yes_no(text)
  return _number(text) if kind == "number" else Reply(normal(text))


def _yes_no(text: str) -> Reply:
  # "Yes, there is no ..." is a yes.
  words = _YES_NO.findall(text.casefold())
  first = re.match(r"\W*(yes|no)\b", text.casefold())
  if first or len(set(words)) == 1:
    return Reply(first[1] if first else words[0])
  return Reply("", f"neither yes nor no in {text.strip()[:60]!r}")


def _number(text: str) -> Reply:
  found = {_plain(number) for number in _NUMBER.findall(text)}
  if not found:
    # Numbers in words; a list of boxes is no number here.
    stated = counting.parse(re.sub(r"[\[{<].*", "", text, flags=re.DOTALL))
    if stated.value is None:
      return Reply("", f"no number in {text.strip()[:60]!r}")
    return Reply(str(stated.value))
  if len(found) > 1:
    return Reply("", f"{len(found)} different numbers in {text.strip()[:60]!r}")
  return Reply(found.pop())


def _plain(number: str) -> str:
  """Returns the digits of a number: "1,200.0" is "1200"."""
  value = decimal.Decimal(number.replace(",", ""))
  if not value:
    return "0"
  plain = f"{abs(value):f}".lstrip("0")
  plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
  plain = f"0{plain}" if plain.startswith(".") else plain
  return f"-{plain}" if value < 0 else plain


def _option(text: str, listed: Mapping[str, str]) -> Reply:
  names: dict[str, list[str]] = {}
  for letter, name in listed.items():
    names.setdefault(normal(name), []).append(letter)
  said = normal(text)
  # The text of an option comes first: one may be called "A" or "No".
  if len(exact := names.get(said, [])) == 1:
    return Reply(exact[0])
  letter = _LETTER.match(text)
  if letter and (found := (letter[1] or letter[2]).upper()) in listed:
    return Reply(found)
  mentioned = {
    name: letters[0]
    for name, letters in names.items()
    if name and len(letters) == 1 and f" {name} " in f" {said} "
  }
  # "Golf" is part of "golf course".
  longest = [
    name
    for name in mentioned
    if not any(name != other and name in other for other in mentioned)
  ]
  if len(longest) == 1:
    return Reply(mentioned[longest[0]])
  what = "several options" if longest else "no option"
  return Reply("", f"{what} in {text.strip()[:60]!r}")
