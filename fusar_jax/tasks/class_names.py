"""Class names: synonyms, aliases and coarse classes.

Tables for SAR targets. SYNONYMS: interchangeable words, replaced word by word:
a "cargo vessel" is a "cargo ship". ALIASES: other names of a complete class.
KINDS: the coarse class of names whose last word does not give it.
"""

import functools
import re

# Word in the text -> word used for comparison.
SYNONYMS = {
  **dict.fromkeys(("vessel", "boat", "watercraft"), "ship"),
  **dict.fromkeys(("aircraft", "airplane", "aeroplane", "jet"), "plane"),
  **dict.fromkeys(("automobile", "vehicle"), "car"),
  **dict.fromkeys(("harbour", "port"), "harbor"),
}
ALIASES = {
  **dict.fromkeys(("cargo", "freighter"), "cargo ship"),
  **dict.fromkeys(("tanker", "oil tanker"), "tanker ship"),
  **dict.fromkeys(("trawler",), "fishing ship"),
  **dict.fromkeys(("storage tank", "oil tank", "fuel tank"), "tank"),
}
KINDS = {
  **dict.fromkeys(("airliner", "fighter", "bomber"), "plane"),
  **dict.fromkeys(("a220", "a330", "a320 321", "arj21"), "plane"),
  **dict.fromkeys(("boeing737", "boeing787"), "plane"),
  **dict.fromkeys(("fishing", "passenger", "tug", "dredger", "ferry"), "ship"),
}
_PLURAL = re.compile(r"(?<=[a-z0-9]{2})(?:(?<=sh)es|(?<!s)s)\Z")


def normal(text: str) -> str:
  """Returns lower-case words with single spaces: "Cargo_Ship." is two words."""
  return " ".join(re.findall(r"[\w-]+", text.lower().replace("_", " ")))


@functools.lru_cache(maxsize=4096)
def singular(word: str) -> str:
  """Returns a word of `normal` without a plural s or es."""
  return _PLURAL.sub("", word)


def folded(name: str) -> str:
  """Returns a normal name with singular words and synonyms replaced.

  Example:
    >>> folded("two cargo vessels"), folded("t-72")
    ('two cargo ship', 't-72')
  """
  words = map(singular, name.split())
  return " ".join(SYNONYMS.get(word, word) for word in words)


def canonical(name: str) -> str:
  """Returns the comparison form of a normal name: `folded`, aliases resolved.

  Example:
    >>> canonical("cargo vessel"), canonical("freighters")
    ('cargo ship', 'cargo ship')
  """
  name = folded(name)
  return ALIASES.get(name, name)


@functools.lru_cache(maxsize=4096)
def coarse(name: str) -> str:
  """Returns the coarse class, usually the last word; "" for "".

  Example:
    >>> coarse("cargo ship"), coarse("Fishing vessel"), coarse("A330")
    ('ship', 'ship', 'plane')
  """
  name = canonical(normal(name))
  last = name.split()[-1] if name else ""
  return KINDS.get(name) or KINDS.get(last, last)
