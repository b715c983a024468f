"""Devices of a slice that need not exist: the compiler knows them all.

libtpu brings the compiler of every TPU and needs no hardware for it.
"""

import importlib.util
import os

import jax
from jax.experimental import topologies

from fusar_jax.planning.chips import Slice


class MissingCompiler(RuntimeError):
  """libtpu is not installed, or not for this machine."""


def devices_of(where: Slice) -> list:
  """Returns the devices of a slice that need not exist.

  Raises:
    MissingCompiler: no libtpu; the message says how to install it.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise MissingCompiler(
      "planning needs the TPU compiler, libtpu, and no TPU. Install it:"
      " pip install 'fusar-jax[plan]' (or: pip install libtpu)."
    )
  # There is no TPU machine around to ask what it is; unasked, it would warn of
  # what it does not know.
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    # There is no TPU to lock: others may plan meanwhile.
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(name, value)
  options = {}
  if where.chip.name == "v4":
    options["chip_config_name"] = "megacore"  # One device a chip.
  if where.chips == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=where.topology, **options
    ).devices
  except (RuntimeError, jax.errors.JaxRuntimeError) as error:
    raise MissingCompiler(
      f"libtpu does not know the topology {where.topology} of {where.name}:"
      f" {str(error).splitlines()[0]}"
    ) from error
  assert len(found) == where.chips, (where, len(found))
  return found
