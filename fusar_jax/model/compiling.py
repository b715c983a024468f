"""Options of XLA that suit where the process runs.

On a CPU, XLA may hand matrix products to YNNPACK. A decoding step of 16 rows of
the `bench` model takes 1.6 times as long with it as with XLA's own products
(jaxlib 0.10.2, 2 cores, in alternation), so it is turned off.
"""

import functools

import jax

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
