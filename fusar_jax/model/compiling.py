"""Options of the model and of XLA that suit the platform.

On a CPU, XLA may hand matrix products to YNNPACK. A decoding step of 16 rows of
the `bench` model takes 1.6 times as long with it as with XLA's own products
(jaxlib 0.10.2, 2 cores, in alternation), so it is turned off.

XLA also moves what does not change out of loops, among it the conversion of
all layers' bfloat16 weights to float32: 12 GB of copies for 3B. Converted in
each layer they take no memory, and no more time: the copies would be read at
twice the bytes.
"""

import functools

import jax
import jax.numpy as jnp

from fusar_jax.model.attention import default_implementation
from fusar_jax.model.config import FusarConfig

_CPU_OPTIONS = {
  "xla_cpu_experimental_ynn_fusion_type": "",
  "xla_disable_hlo_passes": "while-loop-invariant-code-motion",
}


@functools.cache
def compiler_options() -> dict[str, str]:
  """Returns `compiler_options` for `jax.jit`; none off the CPU."""
  if jax.default_backend() != "cpu":
    return {}
  known = {}
  for name, value in _CPU_OPTIONS.items():
    try:
      jax.jit(lambda x: x, compiler_options={name: value})(0.0)
    except jax.errors.JaxRuntimeError:
      continue  # A jaxlib of another version.
    known[name] = value
  return known


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
