"""Multi-host initialisation: rendezvous, failure detection, clean shutdown.

`jax.distributed.initialize` aborts the process if another one never starts or
dies, without a Python exception (jax-ml/jax#35905). Where the address of
process 0 is known, a rendezvous therefore runs first: every process connects to
process 0, reports its host and keeps the connection open. Missing processes are
listed by number and host. A connection that closes without a clean shutdown
means that its process died; the others stop at once and name it.

Environment variables locate the processes: FUSAR_COORDINATOR (host:port of
process 0; the rendezvous uses the port below it), FUSAR_PROCESSES (their
number) and FUSAR_PROCESS (index of this one); within a Slurm step, number and
index default to Slurm's. On GKE, TPU_WORKER_HOSTNAMES and TPU_WORKER_ID are
sufficient. Otherwise JAX detects the cluster (Cloud TPU VMs, Open MPI) and its
timeouts apply; if it finds none, the run has one process. Optional: FUSAR_HOSTS
(comma-separated host names, for messages), FUSAR_LOCAL_DEVICES (number of
devices to split a CPU into) and FUSAR_START_SECONDS (timeout, default 600).
"""

import atexit
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from fusar_jax.training.rendezvous import Cluster, Rendezvous, leave

_NAMES = ("FUSAR_COORDINATOR", "FUSAR_PROCESSES", "FUSAR_PROCESS")
_SLURM = {"FUSAR_PROCESSES": "SLURM_NTASKS", "FUSAR_PROCESS": "SLURM_PROCID"}
# JAX's coordinator on a TPU slice; any free port.
_TPU_PORT = 8482
# JAX's default, 100 s, is longer than a restart takes.
_HEARTBEAT_SECONDS = 60


def find(environment: Mapping[str, str] = os.environ) -> Cluster | None:
  """Returns the cluster that variables locate; None if they locate none.

  Raises:
    ValueError: a variable is missing or invalid.
  """
  values = {name: environment.get(name, "") for name in _NAMES}
  if not any(values.values()):
    return _find_tpu_slice(environment)
  for name, slurm in _SLURM.items():
    values[name] = values[name] or environment.get(slurm, "")
  missing = [name for name, value in values.items() if not value]
  if missing:
    given = ", ".join(name for name in _NAMES if values[name])
    raise ValueError(
      f"{given} given without {', '.join(missing)}; all three or none."
    )
  address, processes, index = values.values()
  host, _, port = address.rpartition(":")
  numbers = (port, processes, index)
  if not host or not all(number.isdigit() for number in numbers):
    raise ValueError(
      f"FUSAR_COORDINATOR={address} FUSAR_PROCESSES={processes}"
      f" FUSAR_PROCESS={index}: expected HOST:PORT and two numbers."
    )
  if int(index) >= int(processes):
    raise ValueError(
      f"FUSAR_PROCESS={index}: expected 0..{int(processes) - 1}, as"
      f" FUSAR_PROCESSES is {processes}."
    )
  if int(processes) == 1:
    return None
  return Cluster(
    host,
    int(port),
    int(processes),
    int(index),
    _devices(environment),
    _hosts(environment, int(processes)),
  )


def _find_tpu_slice(environment: Mapping[str, str]) -> Cluster | None:
  """Returns the slice that GKE describes to its containers, if any."""
  hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
  index = environment.get("TPU_WORKER_ID", "")
  # Several slices are one cluster, which only JAX knows how to number.
  several = environment.get("MEGASCALE_COORDINATOR_ADDRESS")
  if len(hosts) < 2 or not index.isdigit() or several:
    return None
  return Cluster(
    hosts[0], _TPU_PORT, len(hosts), int(index), hosts=tuple(hosts)
  )


def _devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
  """Returns the local GPUs of this process; None: all."""
  # Slurm starts one process per GPU unless set otherwise, as JAX assumes too.
  chosen = environment.get("JAX_LOCAL_DEVICE_IDS") or environment.get(
    "SLURM_LOCALID"
  )
  return tuple(map(int, chosen.split(","))) if chosen else None


def _hosts(environment: Mapping[str, str], processes: int) -> tuple[str, ...]:
  for name in ("FUSAR_HOSTS", "TPU_WORKER_HOSTNAMES"):
    hosts = environment.get(name, "").split(",")
    if len(hosts) == processes:
      return tuple(hosts)
  return ()


@contextlib.contextmanager
def initialized(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
  """Joins the processes of the run; call it before JAX initialises devices.

  While the body runs, the death or failure of any process ends all others with
  a message that names it. The exit code is 1 after a failure and PEER_LOST
  after a death.

  Raises:
    ValueError: invalid variables, or processes whose settings conflict.
    TimeoutError: processes are missing; lists them.
  """
  devices = environment.get("FUSAR_LOCAL_DEVICES", "")
  if devices:
    jax.config.update("jax_num_cpu_devices", int(devices))
  # Has an effect on CPUs only.
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  cluster = find(environment)
  if cluster is not None:
    rendezvous = Rendezvous(cluster)
    rendezvous.call(_start_seconds(environment))
    jax.distributed.initialize(
      f"{cluster.host}:{cluster.port}",
      cluster.processes,
      cluster.index,
      cluster.devices,
      cluster_detection_method="deactivate",
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
  else:
    cluster = _detect(environment)
    if cluster is None:
      yield
      return
    rendezvous = Rendezvous(cluster)
    rendezvous.call(_start_seconds(environment))
  try:
    yield
  except BaseException as error:
    rendezvous.tell({"failed": f"{type(error).__name__}: {error}"})
    # Runs before JAX's exit handler, which would wait for dead processes.
    atexit.register(leave)
    raise
  rendezvous.tell({"done": True})


def _detect(environment: Mapping[str, str]) -> Cluster | None:
  """Lets JAX find and join the cluster; returns it, None if single-process."""
  # Alone in a Slurm step, JAX would see the first GPU only.
  if environment.get("SLURM_NTASKS") == "1":
    return None
  try:
    jax.distributed.initialize(
      initialization_timeout=_start_seconds(environment),
      heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:
    if "coordinator_address should be defined" in str(error):
      return None  # No cluster.
    if "must be called before" in str(error):
      return None  # A program that uses JAX already calls a command's `main`.
    raise
  processes = jax.process_count()
  if processes == 1:
    return None
  # A connection of our own, to name a process that dies.
  with socket.create_server(("", 0)) as free:
    port = free.getsockname()[1]
  address = f"{socket.gethostname()}:{port}".encode().ljust(256)
  address = multihost_utils.broadcast_one_to_all(
    np.frombuffer(address, np.uint8)
  )
  host, _, port = bytes(np.asarray(address)).decode().strip().rpartition(":")
  return Cluster(
    host,
    int(port) + 1,
    processes,
    jax.process_index(),
    hosts=_hosts(environment, processes),
  )


def _start_seconds(environment: Mapping[str, str]) -> int:
  return int(environment.get("FUSAR_START_SECONDS") or 600)


@contextlib.contextmanager
def preemption() -> Iterator[Callable[[int], bool]]:
  """Yields stopped(step): whether a preemption signal has arrived.

  On a pod all processes must stop at the same step: JAX's coordination service
  receives the signal of any process and agrees on one step.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  heard = []
  before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
  try:
    yield lambda step: bool(heard)
  finally:
    signal.signal(signal.SIGTERM, before)
