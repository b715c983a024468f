"""Old name of `fusar_jax.datasets.shards`, kept for one release."""

import runpy
import warnings

if __name__ == "__main__":
  warnings.warn(
    "fusar_jax.data.shards is now fusar_jax.datasets.shards; the old name"
    " goes in the next release.",
    FutureWarning,
    stacklevel=2,
  )
  runpy.run_module("fusar_jax.datasets.shards", run_name="__main__")
