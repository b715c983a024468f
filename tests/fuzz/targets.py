"""The readers that strangers' files and texts reach, by name."""

import data_targets
import geo_targets
import model_targets
import text_targets
from target import Target

TARGETS: dict[str, Target] = dict(
  sorted(
    {
      **data_targets.TARGETS,
      **geo_targets.TARGETS,
      **model_targets.TARGETS,
      **text_targets.TARGETS,
    }.items()
  )
)
