"""Connections between processes of a run, to name one that is missing or dies.

Every process connects to process 0, reports its host and keeps the connection
open: a star of JSON-lines messages. See `fusar_jax.training.distributed`.
"""

import contextlib
import dataclasses
import json
import os
import selectors
import socket
import sys
import threading
import time

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


class Rendezvous:
  """Star of connections between process 0 and every other process."""

  def __init__(self, cluster: Cluster):
    self._cluster = cluster
    self._here = {
      "process": cluster.index,
      "processes": cluster.processes,
      "host": socket.gethostname(),
      "pid": os.getpid(),
    }
    self._lines: dict[int, _Connection] = {}
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
          self._reject(
            TimeoutError(
              f"{', '.join(cluster.name(i) for i in sorted(missing))} did not"
              f" connect to {cluster.host}:{cluster.port} in {seconds:.0f} s."
              " Check its log: it has not started, has died, or cannot reach"
              f" ports {cluster.port - 1} and {cluster.port} of this host."
              f" Connected: {self._present()}."
            )
          )
        line = _Connection(connection)
        message = line.first(5.0)
        # Anything can connect to a port.
        if message is not None and message.keys() == self._here.keys():
          self._admit(message, line)
    self.tell({"rendezvous": [self._who[i] for i in range(cluster.processes)]})

  def _admit(self, message: dict, line: "_Connection") -> None:
    index, processes = message["process"], message["processes"]
    where = f"{message['host']} pid {message['pid']}"
    problem = None
    if processes != self._cluster.processes:
      problem = (
        f"process {index} ({where}) expects {processes} processes, process 0"
        f" expects {self._cluster.processes}"
      )
    elif index in self._who:
      other = self._who[index]
      problem = (
        f"two processes have number {index}: {where}, and {other['host']} pid"
        f" {other['pid']}"
      )
    if problem:
      self._lines[-1] = line
      self._reject(
        ValueError(f"{problem}. Is another run using this coordinator's port?")
      )
    self._lines[index], self._who[index] = line, message

  def _reject(self, error: Exception) -> None:
    self.tell({"rejected": str(error)})
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
            f" no process at {address[0]}:{address[1]} in {seconds:.0f} s"
            f" ({error}): {cluster.name(0)} has not started, has died, or is"
            " behind a firewall."
          ) from None
        time.sleep(0.2)
    self._lines[0] = _Connection(connection)
    self._lines[0].send(self._here)
    message = self._lines[0].first(max(deadline - time.monotonic(), 0) + 5.0)
    if message is None:
      raise TimeoutError(
        f"{cluster.name(0)} at {cluster.host}:{cluster.port - 1} exited"
        " before all processes had connected; see its log."
      )
    if "rejected" in message:
      raise TimeoutError(message["rejected"])
    self._who = dict(enumerate(message["rendezvous"]))

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
        for message in line.receive():
          if "done" in message:
            selector.unregister(line.connection)
            break
          if "failed" in message:
            self._stop(index, f"stopped: {message['failed']}", 1)
          if "stop" in message:
            _end(message["stop"], message["code"])
          if "lost" in message:
            self._stop(
              index, "died without a message: check its log and host", PEER_LOST
            )

  def _stop(self, index: int, how: str, code: int) -> None:
    who = self._who[index]
    message = (
      f"{self._cluster.name(index)} on {who['host']} pid {who['pid']} {how}."
    )
    # Only process 0 is connected to all processes.
    self.tell({"stop": message, "code": code})
    _end(message, code)


class _Connection:
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
    message = self.receive(once=True)
    self.connection.settimeout(None)
    return message[0] if message and "lost" not in message[0] else None

  def receive(self, once: bool = False) -> list[dict]:
    """Returns the received messages; [{"lost": True}] if it disconnected."""
    while True:
      try:
        data = self.connection.recv(4096)
      except OSError:
        data = b""
      if not data or len(self._rest) > _LONGEST_LINE:
        return [{"lost": True}]
      *lines, self._rest = (self._rest + data).split(b"\n")
      if lines or not once:
        break
    try:
      return [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError):
      return [{"lost": True}]


def _listen(host: str, port: int) -> socket.socket:
  local = host in ("127.0.0.1", "localhost")
  if local or not socket.has_dualstack_ipv6():
    return socket.create_server((host if local else "", port))
  return socket.create_server(
    ("", port), family=socket.AF_INET6, dualstack_ipv6=True
  )


def _end(message: str, code: int) -> None:
  print(f"this process stops because {message}", file=sys.stderr, flush=True)
  time.sleep(_GRACE_SECONDS)
  leave(code)


def leave(code: int = 1) -> None:
  """Exits without waiting for other processes."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(code)
