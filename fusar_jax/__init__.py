"""FUSAR-GPT in JAX: SAR images and AlphaEarth anchors to language.

`fusar_jax.load(path)` gives a model to ask; see README.md. Importing the
package imports no JAX: loader workers and `geo` stay light.
"""

from fusar_jax._interrupt import end_commands
from fusar_jax._version import __version__ as __version__

# Here, because a command imports this package first.
end_commands()


def load(
  path,
  adapter=None,
  legacy_sigma=None,
  *,
  use_tlm=True,
  image_size=None,
  mesh="auto",
  dtype=None,
  quantize=None,
):
  """Loads a model to ask: see `fusar_jax.inference.load.load`."""
  from fusar_jax.inference.load import load as load_assistant  # imports JAX

  return load_assistant(
    path,
    adapter=adapter,
    legacy_sigma=legacy_sigma,
    use_tlm=use_tlm,
    image_size=image_size,
    mesh=mesh,
    dtype=dtype,
    quantize=quantize,
  )
