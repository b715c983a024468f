"""Old name of `fusar_jax.datasets.tfds_fusar`, kept for one release."""

import warnings
from pathlib import Path

warnings.warn(
  "fusar_jax.data.tfds_fusar is now fusar_jax.datasets.tfds_fusar; the old name"
  " goes in the next release.",
  FutureWarning,
  stacklevel=2,
)
# Its modules are found there, `python -m` included. Nothing is imported: the
# input pipeline knows nothing of what makes data sets.
__path__ = [str(Path(__file__).parents[2] / "datasets" / "tfds_fusar")]
