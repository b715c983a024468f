"""Describes a simulated scene in the eight caption fields.

The texts are those of `tasks.description`, which describes real maps, too.
Every text is derived from the drawn maps and targets; the place only names the
landform (coast, lake shore, river banks, plain).
"""

from collections.abc import Sequence

from fusar_jax.simulation.targets import Target
from fusar_jax.simulation.terrain import Terrain
from fusar_jax.tasks.description import short
from fusar_jax.tasks.description.ground import Ground

_FORM = {
  "coast": "coast",
  "harbour": "coast",
  "lake": "lake shore",
  "river": "river banks",
}


def describe(terrain: Terrain, targets: Sequence[Target]) -> dict[str, str]:
  """Returns the text of each of `captioning.FIELDS`; see `short.describe`."""
  return short.describe(ground_of(terrain), targets)


def ground_of(terrain: Terrain) -> Ground:
  """Returns the maps of a scene, of which nothing is unknown."""
  return Ground(
    gsd=terrain.gsd,
    cover=terrain.cover,
    surface=terrain.surface,
    height=terrain.height,
    form=_FORM.get(terrain.place, "plain"),
    runways=terrain.runways,
    piers=terrain.piers,
  )
