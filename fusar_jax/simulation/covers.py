"""Land covers and their backscatter and AlphaEarth statistics.

`ground_statistics.json` contains mean and spread of backscatter, and mean and
covariance of AlphaEarth vectors, per region and cover. `fit` computes it from
real points with Sentinel-1, AlphaEarth and Dynamic World data. The table lists
its sources and the attribution that their licences require.

R regions, 8 covers, E = 64 embedding bands, K factors.
"""

import dataclasses
import functools
import json
from importlib import resources

import numpy as np

from fusar_jax.tasks.description import ground
from fusar_jax.tasks.description.ground import (
  BARE,
  BUILT,
  CROPS,
  FLOODED,
  GRASS,
  SHRUB,
  TREES,
  WATER,
)

__all__ = [
  "BARE",
  "BUILT",
  "COVERS",
  "CROPS",
  "FLOODED",
  "GRASS",
  "REGIONS",
  "SHRUB",
  "TABLE",
  "TREES",
  "WATER",
  "GroundStatistics",
  "ground_statistics",
  "parse",
  "shipped_table",
]

# Dynamic World classes in their original order, without snow.
COVERS = ground.COVERS[:8]
# Regions of the points; every scene is in one of them.
REGIONS = ("amazon", "california", "iowa")
TABLE = "ground_statistics.json"


@dataclasses.dataclass(frozen=True, eq=False)
class GroundStatistics:
  """Fitted statistics per region and cover. Arrays are read-only.

  A vector of a cover is mean + z @ factors + noise * e with z and e standard
  normal, normalised to unit length. Its covariance before normalisation is
  factors.T @ factors + diag(noise**2).

  Attributes:
    vv_mean: float64[R, 8], dB, of backscatter in VV.
    vv_std: float64[R, 8], dB, between points of one cover.
    embedding_mean: float64[R, 8, 64], of length 0.8 to 1.
    embedding_factors: float64[R, 8, K, 64].
    embedding_noise: float64[R, 8, 64], at least 0.
  """

  vv_mean: np.ndarray
  vv_std: np.ndarray
  embedding_mean: np.ndarray
  embedding_factors: np.ndarray
  embedding_noise: np.ndarray

  def __post_init__(self):
    for field in dataclasses.fields(self):
      getattr(self, field.name).setflags(write=False)


@functools.cache
def ground_statistics() -> GroundStatistics:
  """Returns the statistics of the shipped table (cached).

  Example: a lake in the Amazon is darker than its forest by half of the decades
  that VV spans:
    >>> ground_statistics().vv_mean[0, [WATER, TREES]].round()
    array([-22.,  -8.])
  """
  return parse(shipped_table())


def shipped_table() -> dict:
  """Returns the shipped table as parsed JSON."""
  text = resources.files("fusar_jax.simulation").joinpath(TABLE).read_text()
  return json.loads(text)


def parse(table: dict) -> GroundStatistics:
  """Returns the statistics of a table written by `fit`.

  Raises:
    ValueError: covers or regions differ from this module's.
  """
  for name, own in (("covers", COVERS), ("regions", REGIONS)):
    if tuple(table[name]) != own:
      raise ValueError(
        f"{TABLE}: {name} {list(own)} expected, got {table[name]};"
        " make it again with `python -m fusar_jax.simulation.fit`."
      )
  scale = table["embedding_unit"]
  embedding = {
    f"embedding_{name}": np.array(table[f"embedding_{name}"]) * scale
    for name in ("mean", "factors", "noise")
  }
  return GroundStatistics(
    vv_mean=np.array(table["vv_mean_db"], np.float64),
    vv_std=np.array(table["vv_std_db"], np.float64),
    **embedding,
  )
