"""Fixtures: answers scored by the real scorer, and a strict HTML reader."""

import html.parser
import re

import pytest

from fusar_jax.report.answers import read_answers
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks.predictions import Prediction

_VOID = ("meta", "br", "input")


class Reader(html.parser.HTMLParser):
  """Reads a page: tags with attributes, and (tag, text) of the texts.

  Raises AssertionError for unbalanced tags.
  """

  def __init__(self, page: str):
    super().__init__()
    self.tags, self.texts, self._open = [], [], []
    self.feed(page)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open:
      self.texts.append((self._open[-1], data))

  def named(self, tag, kind=None):
    """Returns the attributes of the tags of a name, of one class if given."""
    return [
      attrs
      for name, attrs in self.tags
      if name == tag and kind in (None, attrs.get("class"))
    ]

  def text(self, tag):
    return "".join(text for name, text in self.texts if name == tag)


def assert_self_contained(page: str) -> Reader:
  """Asserts that a page loads nothing, and that its references resolve."""
  reader = Reader(page)
  tags = {tag for tag, _ in reader.tags}
  assert not tags & {"link", "iframe", "img", "object", "base"}
  assert not re.search(r"url\(|@import", page)
  ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
  assert len(ids) == len(set(ids))
  for _, attrs in reader.tags:
    assert not any(name.startswith("on") for name in attrs)
    for name in ("href", "src", "xlink:href"):
      target = attrs.get(name, "data:image/")
      assert target.startswith("data:image/") or target[1:] in ids
  policy = reader.named("meta")[1]["content"]
  assert policy.startswith("default-src 'none'; img-src data:")
  return reader


@pytest.fixture(scope="session")
def read_page():
  """Function page -> Reader, after checking that the page is self-contained."""
  return assert_self_contained


@pytest.fixture(scope="session")
def scored():
  """Function (task, [(image, truth, predicted), ...]) -> (answers, metrics)."""

  def score(task, given, question="?"):
    rows = [
      Prediction(f"r{k}", k + 1, task, question, truth, text, image=image)
      for k, (image, truth, text) in enumerate(given)
    ]
    metrics, samples = score_rows(rows)
    return read_answers(rows, samples), metrics

  return score
