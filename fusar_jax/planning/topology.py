"""Compile-only devices of a TPU slice.

libtpu includes the compiler of every TPU generation and compiles without TPU
hardware.
"""

import importlib.util
import os

import jax
from jax.experimental import topologies

from fusar_jax.planning.chips import Slice


class MissingCompiler(RuntimeError):
  """libtpu is not installed or does not support the topology."""


def devices_of(where: Slice) -> list:
  """Returns compile-only devices, slice by slice.

  Raises:
    MissingCompiler: libtpu is missing; the message contains the install
      command. Or it does not support the topology.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise MissingCompiler(
      "planning needs the TPU compiler, libtpu, and no TPU. Install it:"
      " pip install 'fusar-jax[plan]' (or: pip install libtpu)."
    )
  # Skip the query of the TPU metadata server: off a TPU VM it fails, and libtpu
  # logs warnings about missing values.
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    # No TPU needs a lock: several plans may run at the same time.
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(name, value)
  options = {}
  if where.chip.name == "v4":
    options["chip_config_name"] = "megacore"  # One device per chip.
  if where.chips == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  if where.count > 1:
    options["num_slices"] = where.count
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=where.topology, **options
    ).devices
  except (RuntimeError, jax.errors.JaxRuntimeError) as error:
    raise MissingCompiler(
      f"libtpu does not know the topology {where.topology} of {where.name}:"
      f" {str(error).splitlines()[0]}"
    ) from error
  assert len(found) == where.devices, (where, len(found))
  return found
