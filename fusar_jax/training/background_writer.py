"""Sends metrics to a service from a thread, so that it never stops training.

A service may be slow, or down for hours. Lines wait in memory meanwhile and are
sent with the next one; if the run ends before, the next resume sends them from
metrics.jsonl. The first failure is logged, the others are not.

The service's id of the run is kept in WORKDIR/metric_services.json, so a
resumed run continues it. Steps that a resumed run repeats are sent once.
"""

import logging
import queue
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fusar_jax.io.strict_json import read_object
from fusar_jax.training import provenance

SERVICES_FILE = "metric_services.json"
# How long the end of a run waits for lines that are not sent yet.
_CLOSE_SECONDS = 60.0
# https://user:password@host/a.jsonl?signature=..., also several with commas.
_SECRETS = re.compile(r"(\b\w+://)[^/@\s]*@|\?[^\s,]*")
# Several services share the file.
_FILE_LOCK = threading.Lock()


class Service(Protocol):
  """The client of one service; used by one thread."""

  name: str

  def open(
    self, identity: str | None, parameters: Mapping[str, Any]
  ) -> tuple[str, Mapping[str, int] | None]:
    """Creates a run, or continues that of `identity`.

    Args:
      identity: id of the run in this service; None: a new one.
      parameters: config and provenance of the run, nested, without secrets.

    Returns:
      The id, and the last step that the service has of each metric; None: it
      cannot be asked.
    """
    ...

  def send(self, step: int, values: Mapping[str, float]) -> None:
    """Stores the metrics of a step."""

  def close(self, failed: bool) -> None:
    """Marks the run as finished or failed."""

  def record(self, identity: str, scores: Mapping[str, float]) -> None:
    """Adds scores to a run that has ended; nothing else is called."""


class BackgroundWriter:
  """A `MetricWriter` of a service.

  Args:
    service: its client; opened with the first line.
    workdir: of the run.
    seconds: how long `close` waits.
  """

  def __init__(
    self, service: Service, workdir: Path, seconds: float = _CLOSE_SECONDS
  ):
    self._service = service
    self._file = workdir / SERVICES_FILE
    self._workdir = workdir
    self._seconds = seconds
    self._lines: queue.SimpleQueue = queue.SimpleQueue()
    self._unsent: list[tuple[int, dict]] = []
    self._sent: Mapping[str, int] = {}
    self._recorded: dict[str, int] = {}
    self._opened = self._warned = False
    self._thread: threading.Thread | None = None

  def start(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """See `MetricWriter`; rows up to `step` that the service lacks are sent."""
    for row in rows:
      values = {name: row[name] for name in row if name != "step"}
      for name in values:
        self._recorded[name] = row["step"]
      if row["step"] <= step:
        self._unsent.append((row["step"], values))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Queues a line."""
    if self._thread is None:
      name = f"metrics of {self._service.name}"
      self._thread = threading.Thread(target=self._run, name=name, daemon=True)
      self._thread.start()
    self._lines.put((step, dict(values)))

  def close(self, failed: bool = False) -> None:
    """Waits for a minute at most until all lines are sent."""
    if self._thread is None:
      return
    self._lines.put(failed)
    self._thread.join(self._seconds)
    lines = len(self._unsent) + max(self._lines.qsize() - 1, 0)
    if self._thread.is_alive() or lines:
      self._warn(
        f"{lines} lines are not sent; metrics.jsonl has them, and the next"
        " resume sends them"
      )

  def _run(self) -> None:
    while not isinstance(line := self._lines.get(), bool):
      self._unsent.append(line)
      self._try(self._send)
    self._try(self._send)
    if self._opened:
      self._try(lambda: self._service.close(line))

  def _send(self) -> None:
    if not self._opened:
      self._open()
    while self._unsent:
      step, values = self._unsent[0]
      new = {k: v for k, v in values.items() if step > self._sent.get(k, -1)}
      if new:
        self._service.send(step, new)
      self._unsent.pop(0)

  def _open(self) -> None:
    with _FILE_LOCK:
      identity = self._identities().get(self._service.name)
    new, sent = self._service.open(identity, parameters(self._workdir))
    if new != identity:
      with _FILE_LOCK:
        ids = self._identities() | {self._service.name: new}
        provenance.write_json(self._file, ids)
    elif sent is None:
      # All that earlier processes have written.
      sent = self._recorded
    self._sent, self._opened = sent or {}, True

  def _identities(self) -> dict[str, Any]:
    return read_object(self._file) if self._file.is_file() else {}

  def _try(self, action: Callable[[], None]) -> None:
    try:
      action()
    except Exception as error:  # Whatever a client raises, the run continues.
      if not self._warned:
        self._warned = True
        self._warn(
          f"{type(error).__name__}: {error}. Training continues, and every"
          " line tries again; metrics.jsonl is complete"
        )

  def _warn(self, message: str) -> None:
    logging.getLogger(__name__).warning("%s: %s", self._service.name, message)


def parameters(workdir: Path) -> dict[str, Any]:
  """Returns config and provenance of a run; URLs without their secrets."""
  record = read_object(workdir / provenance.PROVENANCE_FILE)
  record.pop("files", None)
  settings = read_object(workdir / provenance.CONFIG_FILE)
  return _public({**settings, "provenance": record})


def _public(value: Any) -> Any:
  """Drops user names, passwords and signatures from URLs."""
  if isinstance(value, Mapping):
    return {name: _public(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_public(item) for item in value]
  if isinstance(value, str) and "://" in value:
    return _SECRETS.sub(r"\1", value)
  return value
