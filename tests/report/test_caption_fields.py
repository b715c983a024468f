"""Texts of caption fields, counted."""

import types

from fusar_jax.report.caption_fields import field_texts, fields_of
from fusar_jax.tasks import captioning


def row(answer, task="captioning"):
  triplet = types.SimpleNamespace(answer=answer)
  return types.SimpleNamespace(task=task, triplet=triplet)


def caption(**texts):
  fields = dict.fromkeys(captioning.FIELDS, "none") | texts
  return captioning.answer(fields, asked=("Terrain", "Roads"))


def test_texts_are_counted_by_field():
  rows = [
    row(caption(Terrain="coast", Roads="roads unknown")),
    row(caption(Terrain="wide open coast")),
    row(caption(Terrain="coast")),
    row("There are two ships.", "counting"),
    row(None),
  ]
  assert [len(fields_of(one)) for one in rows] == [2, 2, 2, 0, 0]
  terrain, roads = field_texts(rows)
  assert (terrain.name, terrain.captions, terrain.distinct) == ("Terrain", 3, 2)
  assert terrain.common == [("coast", 2), ("wide open coast", 1)]
  assert terrain.words == (1, 1, 3)
  assert (terrain.unknown, roads.unknown) == (0, 1)
