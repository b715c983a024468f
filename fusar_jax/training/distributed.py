"""Multi-host initialisation: rendezvous, failure detection, clean shutdown.

If a process never starts or dies, JAX aborts the others after minutes, and
reports a process number at best (jax-ml/jax#35905). A rendezvous therefore runs
before `jax.distributed.initialize`: every process connects to process 0,
reports its host and keeps the connection open. Missing processes are listed by
number and host. A connection that closes without a clean shutdown means that
its process died; the others stop at once and name it.

Environment variables locate the processes: FUSAR_COORDINATOR (host:port of
process 0; the rendezvous uses the port below it), FUSAR_PROCESSES (their
number) and FUSAR_PROCESS (index of this one). If they are unset, JAX's
detection applies (Cloud TPU, GKE, Slurm, Open MPI); if it finds nothing, the
run has one process. Optional: FUSAR_HOSTS (comma-separated host names, for
messages), FUSAR_LOCAL_DEVICES (number of devices to split a CPU into) and
FUSAR_START_SECONDS (timeout of the rendezvous, default 600).
"""

import atexit
import contextlib
import dataclasses
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import jax

# JAX's detection is public only inside `jax.distributed.initialize`, which
# aborts the process where one is missing.
from jax._src.clusters import ClusterEnv

_NAMES = ("FUSAR_COORDINATOR", "FUSAR_PROCESSES", "FUSAR_PROCESS")
# Exit code of a process that stops because another one was lost (preempted host
# or power loss). A scheduler may restart it. A failure ends all processes with
# exit code 1; a restart would only repeat it.
PEER_LOST = 76
# A process that receives a failure may be about to report its own.
_GRACE_SECONDS = 3.0
_LONGEST_LINE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Addresses and indices of the processes of a run.

  Attributes:
    host, port: of process 0, where JAX's coordinator will listen.
    processes: their number.
    index: index of this process.
    devices: local devices that this process may use; None: all.
    hosts: host names by index, if the environment lists them; else empty.
  """

  host: str
  port: int
  processes: int
  index: int
  devices: tuple[int, ...] | None = None
  hosts: tuple[str, ...] = ()

  def name(self, index: int) -> str:
    """Returns e.g. "process 3 of 4 (host-3)"."""
    known = f" ({self.hosts[index]})" if index < len(self.hosts) else ""
    return f"process {index} of {self.processes}{known}"


def find(environment: Mapping[str, str] = os.environ) -> Cluster | None:
  """Returns the cluster that the environment describes; None if single-process.

  Raises:
    ValueError: a variable is missing or invalid.
  """
  given = [name for name in _NAMES if environment.get(name)]
  if not given:
    return _detected(environment)
  if len(given) < len(_NAMES):
    missing = ", ".join(name for name in _NAMES if name not in given)
    raise ValueError(
      f"{', '.join(given)} given without {missing}; all three or none."
    )
  address, processes, index = (environment[name] for name in _NAMES)
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
    hosts=_hosts(environment, int(processes)),
  )


def _detected(environment: Mapping[str, str]) -> Cluster | None:
  # Alone in a Slurm step, JAX would see the first GPU only.
  if environment.get("SLURM_NTASKS") == "1":
    return None
  address, processes, index, devices = (
    ClusterEnv.auto_detect_unset_distributed_params(
      None, None, None, None, None, _start_seconds(environment)
    )
  )
  if address is None or processes == 1:
    return None
  chosen = environment.get("JAX_LOCAL_DEVICE_IDS")
  if chosen:
    devices = [int(device) for device in chosen.split(",")]
  host, _, port = address.rpartition(":")
  return Cluster(
    host,
    int(port),
    processes,
    index,
    None if devices is None else tuple(devices),
    _hosts(environment, processes),
  )


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
  cluster = find(environment)
  if cluster is None:
    yield
    return
  rendezvous = _Rendezvous(cluster)
  rendezvous.call(_start_seconds(environment))
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(
    f"{cluster.host}:{cluster.port}",
    cluster.processes,
    cluster.index,
    cluster.devices,
    cluster_detection_method="deactivate",
  )
  try:
    yield
  except BaseException as error:
    rendezvous.tell({"failed": f"{type(error).__name__}: {error}"})
    # Runs before JAX's exit handler, which would wait for dead processes.
    atexit.register(_leave)
    raise
  rendezvous.tell({"done": True})


class _Rendezvous:
  """Star of connections between process 0 and every other process."""

  def __init__(self, cluster: Cluster):
    self._cluster = cluster
    self._here = {
      "process": cluster.index,
      "processes": cluster.processes,
      "host": socket.gethostname(),
      "pid": os.getpid(),
    }
    self._lines: dict[int, _Lines] = {}
    self._who = {cluster.index: self._here}

  def call(self, seconds: float) -> None:
    """Waits for all processes, then monitors them in a background thread."""
    deadline = time.monotonic() + seconds
    if self._cluster.index == 0:
      self._gather(deadline, seconds)
    else:
      self._report(deadline, seconds)
    threading.Thread(target=self._watch, daemon=True).start()

  def tell(self, message: dict) -> None:
    """Sends the message to all processes that are still connected."""
    for line in self._lines.values():
      with contextlib.suppress(OSError):
        line.send(message)

  def _gather(self, deadline: float, seconds: float) -> None:
    cluster = self._cluster
    with _listen(cluster.host, cluster.port - 1) as server:
      while len(self._lines) < cluster.processes - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
          connection, _ = server.accept()
        except TimeoutError:
          missing = set(range(cluster.processes)) - set(self._who)
          self._refuse(
            TimeoutError(
              f"{', '.join(cluster.name(i) for i in sorted(missing))} did not"
              f" come to {cluster.host}:{cluster.port} in {seconds:.0f} s."
              " Look at its log: it has not started, has died, or cannot reach"
              f" ports {cluster.port - 1} and {cluster.port} of this host."
              f" There are: {self._present()}."
            )
          )
        line = _Lines(connection)
        said = line.first(5.0)
        # Anything can connect to a port.
        if said is not None and said.keys() == self._here.keys():
          self._admit(said, line)
    self.tell({"rendezvous": [self._who[i] for i in range(cluster.processes)]})

  def _admit(self, said: dict, line: "_Lines") -> None:
    index, processes = said["process"], said["processes"]
    where = f"{said['host']} pid {said['pid']}"
    problem = None
    if processes != self._cluster.processes:
      problem = (
        f"process {index} ({where}) believes in {processes} processes, process"
        f" 0 in {self._cluster.processes}"
      )
    elif index in self._who:
      other = self._who[index]
      problem = (
        f"two processes are number {index}: {where}, and {other['host']} pid"
        f" {other['pid']}"
      )
    if problem:
      self._lines[-1] = line
      self._refuse(
        ValueError(f"{problem}. Is another run using this coordinator's port?")
      )
    self._lines[index], self._who[index] = line, said

  def _refuse(self, error: Exception) -> None:
    self.tell({"refused": str(error)})
    raise error

  def _report(self, deadline: float, seconds: float) -> None:
    cluster = self._cluster
    address = (cluster.host, cluster.port - 1)
    while True:
      try:
        connection = socket.create_connection(address, timeout=5.0)
        break
      except OSError as error:
        if time.monotonic() > deadline:
          raise TimeoutError(
            f"{cluster.name(cluster.index)} on {self._here['host']} found"
            f" nobody at {address[0]}:{address[1]} in {seconds:.0f} s ({error})"
            f": {cluster.name(0)} has not started, has died, or a firewall is"
            " between."
          ) from None
        time.sleep(0.2)
    self._lines[0] = _Lines(connection)
    self._lines[0].send(self._here)
    said = self._lines[0].first(max(deadline - time.monotonic(), 0) + 5.0)
    if said is None:
      raise TimeoutError(
        f"{cluster.name(0)} at {cluster.host}:{cluster.port - 1} went away"
        " before all had come; its log says why."
      )
    if "refused" in said:
      raise TimeoutError(said["refused"])
    self._who = dict(enumerate(said["rendezvous"]))

  def _present(self) -> str:
    return ", ".join(
      f"{i} on {who['host']}" for i, who in sorted(self._who.items())
    )

  def _watch(self) -> None:
    """Ends this process when another one fails or dies."""
    selector = selectors.DefaultSelector()
    for index, line in self._lines.items():
      selector.register(line.connection, selectors.EVENT_READ, (index, line))
    while selector.get_map():
      for key, _ in selector.select():
        index, line = key.data
        for said in line.receive():
          if "done" in said:
            selector.unregister(line.connection)
            break
          if "failed" in said:
            self._stop(index, f"stopped: {said['failed']}", 1)
          if "stop" in said:
            _end(said["stop"], said["code"])
          if "lost" in said:
            self._stop(
              index, "died without a word: look at its log and host", PEER_LOST
            )

  def _stop(self, index: int, how: str, code: int) -> None:
    who = self._who[index]
    message = (
      f"{self._cluster.name(index)} on {who['host']} pid {who['pid']} {how}."
    )
    # Only process 0 is connected to all processes.
    self.tell({"stop": message, "code": code})
    _end(message, code)


class _Lines:
  """JSON-lines messages over a socket; keepalive detects a dead host."""

  def __init__(self, connection: socket.socket):
    self.connection = connection
    self._rest = b""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A host without power closes no socket: probe after 20 s, drop after 60.
    for option, value in (
      ("TCP_KEEPIDLE", 20),
      ("TCP_KEEPINTVL", 10),
      ("TCP_KEEPCNT", 4),
    ):
      if hasattr(socket, option):
        number = getattr(socket, option)
        connection.setsockopt(socket.IPPROTO_TCP, number, value)

  def send(self, message: dict) -> None:
    self.connection.sendall(json.dumps(message).encode() + b"\n")

  def first(self, seconds: float) -> dict | None:
    """Returns the first message, or None if none arrives in time."""
    self.connection.settimeout(seconds)
    said = self.receive(once=True)
    self.connection.settimeout(None)
    return said[0] if said and "lost" not in said[0] else None

  def receive(self, once: bool = False) -> list[dict]:
    """Returns the received messages; [{"lost": True}] if it disconnected."""
    while True:
      try:
        data = self.connection.recv(4096)
      except OSError:
        data = b""
      if not data or len(self._rest) > _LONGEST_LINE:
        return [{"lost": True}]
      *whole, self._rest = (self._rest + data).split(b"\n")
      if whole or not once:
        break
    try:
      return [dict(json.loads(line)) for line in whole]
    except (ValueError, TypeError):
      return [{"lost": True}]


def _listen(host: str, port: int) -> socket.socket:
  local = host in ("127.0.0.1", "localhost")
  if local or not socket.has_dualstack_ipv6():
    return socket.create_server((host if local else "", port))
  return socket.create_server(
    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
  )


def _start_seconds(environment: Mapping[str, str]) -> int:
  return int(environment.get("FUSAR_START_SECONDS") or 600)


def _end(message: str, code: int) -> None:
  print(f"this process ends, because {message}", file=sys.stderr, flush=True)
  time.sleep(_GRACE_SECONDS)
  _leave(code)


def _leave(code: int = 1) -> None:
  """Exits without waiting for other processes."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(code)
