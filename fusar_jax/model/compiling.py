"""Options of the model and of XLA that suit the platform.

On a CPU, XLA may hand matrix products to YNNPACK. A decoding step of 16 rows of
the `bench` model takes 1.6 times as long with it as with XLA's own products
(jaxlib 0.10.2, 2 cores, in alternation), so it is turned off.
"""

import functools

import jax
import jax.numpy as jnp

from fusar_jax.model.attention import default_implementation
from fusar_jax.model.config import FusarConfig

_OWN_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options() -> dict[str, str]:
  """Returns `compiler_options` for `jax.jit`; none off the CPU."""
  if jax.default_backend() != "cpu":
    return {}
  try:
    jax.jit(lambda x: x, compiler_options=_OWN_PRODUCTS)(0.0)
  except jax.errors.JaxRuntimeError:
    return {}  # A jaxlib that does not know the option has no YNNPACK either.
  return _OWN_PRODUCTS


def fast_options(
  config: FusarConfig,
  devices: int = 1,
  platform: str | None = None,
  dtype: jnp.dtype = jnp.float32,
) -> dict:
  """Returns the fastest `impl` and `unroll` of `FusarGPT` for a platform.

  A single CPU device uses blocked attention and unrolls up to 12 layers: inside
  a loop XLA neither parallelises element-wise work over cores nor reads layer
  weights in place. On other platforms layers are not unrolled.

  Args:
    config: shapes.
    devices: number of devices of the program.
    platform: "cpu", "gpu" or "tpu"; None: that of this process.
    dtype: compute dtype.
  """
  impl = default_implementation(devices, platform, dtype)
  layers = max(config.vision.depth, config.decoder.layers)
  unrolled = impl == "blocked" and layers <= 12
  return {"impl": impl, "unroll": layers if unrolled else 1}
