"""Training metrics: log lines, metrics.jsonl and its views.

Metrics stay on the device until later steps are dispatched, so reading them
never stalls the device. They are accumulated as sums and counts until a line is
written; means of means are never taken.
"""

import collections
import errno
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import (
  BarColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
)

from fusar_jax.data.triplets import write_text
from fusar_jax.model.batch import Batch
from fusar_jax.training.metric_writers import MetricWriter
from fusar_jax.training.stopwatch import Stopwatch

# Steps that may run ahead of their metrics. It also bounds the batches that
# wait in the queue of the device.
LAG = 2


class MetricsFile:
  """metrics.jsonl: one object a line, in the order of steps.

  Args:
    path: the file.
    after_step: lines beyond it belong to steps that a resumed run repeats;
      they are dropped.

  Attributes:
    found: all complete lines that were there, also the dropped ones.
  """

  def __init__(self, path: Path, after_step: int):
    self._path = Path(path)
    self.found: list[dict[str, Any]] = []
    if not self._path.is_file():
      return
    written = self._path.read_text("utf-8")
    # A kill may have cut the last line, which has no line feed then.
    lines = re.findall(r"[^\n]*\n", written)
    self.found = [json.loads(line) for line in lines]
    kept = "".join(
      line for line, row in zip(lines, self.found) if row["step"] <= after_step
    )
    if kept != written:
      write_text(self._path, kept)

  def append(self, values: dict[str, Any]) -> None:
    """Appends one line by one write, so readers see complete lines.

    Raises:
      OSError: it could not be written, or not all of it; a resumed run drops
        what was.
    """
    line = (json.dumps(values) + "\n").encode()
    flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY
    file = os.open(self._path, flags, 0o666)
    try:
      if os.write(file, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
      raise OSError(error.errno, error.strerror, str(self._path)) from None
    finally:
      os.close(file)


class MetricsLogger:
  """Collects metrics of steps and writes them every `every` steps.

  Args:
    workdir: of the run.
    total_steps: of the run, for the ETA.
    start_step: steps done already.
    batch_size: examples a step.
    every: steps between two lines.
    rate: step, from 0, -> learning rate.
    compiles: -> how many shapes the step was compiled for; a number that keeps
      growing is a leak of time.
    stopwatch: of the run; its values are in every line.
    may_skip: batches whose loss or gradient is not finite that the run may have
      skipped; the step must be made so. 0: the first one is an error.
    writers: views of metrics.jsonl. None on all processes but the first: they
      check, and stay silent.
    saved: `state()` from the checkpoint that the run resumes from.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    total_steps: int,
    start_step: int,
    batch_size: int,
    every: int,
    rate: Callable[[int], Any],
    compiles: Callable[[], int],
    stopwatch: Stopwatch,
    may_skip: int = 0,
    writers: Sequence[MetricWriter] | None = (),
    saved: dict[str, Any] | None = None,
  ):
    self._total = total_steps
    self._batch_size = batch_size
    self._every = every
    self._rate = rate
    self._compiles = compiles
    self._pending = collections.deque()
    self._shapes = set()
    saved = saved or {}
    self._stopwatch = stopwatch
    self._may_skip = may_skip
    self._skipped = saved.get("skipped", 0)
    self._sums = collections.Counter(saved.get("sums", {}))
    self._start_step = self._written = start_step
    self._mark = self._training_time()
    self._writes = writers is not None
    self._writers = writers or ()
    if self._writes:
      self._file = MetricsFile(workdir / "metrics.jsonl", start_step)
      for writer in self._writers:
        writer.start(start_step, self._file.found)
      self._display = _Display(total_steps, start_step)

  def starts(self, batch: Batch) -> None:
    """Announces the compilation for a batch of a new shape."""
    shape = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    if shape in self._shapes:
      return
    self._shapes.add(shape)
    if self._writes:
      rows, length = batch.input_ids.shape
      self._display.print(f"compiling for {rows} rows of {length} tokens")

  def add(
    self, step: int, metrics: dict[str, jax.Array], ids: Sequence[str]
  ) -> None:
    """Takes the metrics of a step that was just dispatched.

    Args:
      step: counted from 1.
      metrics: scalars on the device: loss, grad_norm, weight, tokens, slots,
        and skipped if batches may be.
      ids: of the batch, for errors.

    Raises:
      FloatingPointError: an earlier step's loss or gradient is not finite,
        once more than `may_skip` allows.
    """
    self._pending.append((step, metrics, ids))
    while len(self._pending) > LAG:
      self._read()

  def drain(self) -> None:
    """Reads all metrics there are; call it before a checkpoint."""
    while self._pending:
      self._read()

  def state(self) -> dict[str, Any]:
    """Returns JSON values from which a resumed run continues."""
    return {"skipped": self._skipped, "sums": dict(self._sums)}

  def evaluated(self, step: int, values: dict[str, float]) -> None:
    """Writes the metrics of an evaluation."""
    if self._writes:
      self._record(step, values)
      text = " ".join(f"{k} {v:.5g}" for k, v in values.items())
      self._display.line(step, f"step {step}/{self._total} {text}")

  def _record(self, step: int, values: Mapping[str, Any]) -> None:
    self._file.append({"step": step, **values})
    for writer in self._writers:
      writer.write(step, values)

  def close(self, failed: bool = False) -> None:
    """Ends the display and the views; `failed`: by an error."""
    if self._writes:
      self._display.close()
    for writer in self._writers:
      writer.close(failed)

  def __enter__(self) -> "MetricsLogger":
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.close(failed=kind is not None)

  def _read(self) -> None:
    step, metrics, ids = self._pending.popleft()
    values = {name: x.item() for name, x in jax.device_get(metrics).items()}
    self._sums.update(steps=1, tokens=values["tokens"], slots=values["slots"])
    if values.pop("skipped", False):
      self._skip(step, values, ids)
    else:
      self._check_finite(step, values, ids)
      weight = values["weight"]
      self._sums.update(
        updates=1,
        loss=values["loss"] * weight,
        weight=weight,
        grad_norm=values["grad_norm"],
      )
    if step % self._every == 0 or step == self._total:
      self._write(step)

  def _check_finite(
    self, step: int, values: dict[str, float], ids: Sequence[str]
  ) -> None:
    for name in ("loss", "grad_norm"):
      if not math.isfinite(values[name]):
        raise FloatingPointError(
          f"step {step}: {name} is {values[name]}; the batch holds"
          f" {', '.join(map(str, ids))}. Lower config.optimizer.learning_rate"
          " or look at these examples; the last checkpoint is sound."
          " config.skip_nonfinite lets a run skip such batches."
        )

  def _skip(
    self, step: int, values: dict[str, float], ids: Sequence[str]
  ) -> None:
    self._skipped += 1
    message = (
      f"step {step}: skipped, loss is {values['loss']} and grad_norm"
      f" {values['grad_norm']}; the batch holds {', '.join(map(str, ids))}."
    )
    if self._skipped > self._may_skip:
      raise FloatingPointError(
        f"{message} It is the {self._skipped}. such batch of this run, and"
        f" config.skip_nonfinite allows {self._may_skip}. Look at these"
        " examples; the last checkpoint is sound."
      )
    if self._writes:
      logging.getLogger(__name__).warning(message)

  def _training_time(self) -> float:
    """Seconds so far, without evaluation and compilation."""
    lost = map(self._stopwatch.lost, ("evaluate", "compile"))
    return self._stopwatch.elapsed() - sum(lost)

  def _write(self, step: int) -> None:
    now = self._training_time()
    # After a resume the sums may be older than this process.
    new_steps = step - self._written
    seconds = max(now - self._mark, 1e-9)
    sums, self._sums = self._sums, collections.Counter()
    self._written, self._mark = step, now
    if not self._writes:
      return
    share = new_steps / sums["steps"]
    updates = sums["updates"]
    means = {}  # Of no update there is none.
    if updates:
      means["loss"] = sums["loss"] / max(sums["weight"], 1e-9)
      means["grad_norm"] = sums["grad_norm"] / updates
    eta = (self._total - step) * seconds / new_steps
    values = {
      **means,
      # A skipped batch does not move the schedule.
      "learning_rate": float(self._rate(max(step - 1 - self._skipped, 0))),
      "samples_per_s": new_steps * self._batch_size / seconds,
      "tokens_per_s": sums["tokens"] * share / seconds,
      "padding": 1 - sums["tokens"] / sums["slots"],
      "compiles": self._compiles(),
      **self._stopwatch.values(),
    }
    if self._may_skip:
      values["skipped"] = self._skipped
    self._record(step, values)
    self._display.line(
      step,
      f"step {step}/{self._total}"
      f" loss {values.get('loss', math.nan):.4f}"
      f" grad_norm {values.get('grad_norm', math.nan):.3f}"
      f" lr {values['learning_rate']:.3g}"
      f" samples/s {values['samples_per_s']:.2f}"
      f" tokens/s {values['tokens_per_s']:.0f}"
      f" padding {values['padding']:.0%}"
      f" eta {_clock(eta)}"
      + (f" skipped {self._skipped}" if self._skipped else ""),
    )


class _Display:
  """A live bar on a terminal; one greppable line per report elsewhere."""

  def __init__(self, total: int, start: int):
    self._console = Console(file=sys.stdout)
    self._progress = None
    if self._console.is_terminal:
      self._progress = Progress(
        BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
      )
      self._task = self._progress.add_task("", total=total, completed=start)
      self._progress.start()

  def print(self, text: str) -> None:
    if self._progress is None:
      print(text, flush=True)
    else:
      self._progress.console.print(text)

  def line(self, step: int, text: str) -> None:
    if self._progress is None:
      print(text, flush=True)
    else:
      self._progress.update(self._task, completed=step, description=text)

  def close(self) -> None:
    if self._progress is not None:
      self._progress.stop()


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours:02}:{minutes:02}:{seconds:02}"
