"""Worker process of one side: reads JSON requests, writes JSON answers.

One request per input line, one answer per output line. Separate processes give
separate peak memories, and isolate the threads and caches of both libraries.
"""

import argparse
import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--side", choices=("ours", "torch"), required=True)
  parser.add_argument("--folder", type=Path, required=True)
  args = parser.parse_args()
  # Output of libraries goes to stderr: stdout carries only answers.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  if args.side == "ours":
    from fusar_jax.experiments.benchmark.ours import Ours as Side
  else:
    from fusar_jax.experiments.benchmark.reference import Reference as Side
  side = Side(args.folder)
  for line in sys.stdin:
    request = json.loads(line)
    work = getattr(side, request.pop("do"))
    forget_peak()
    begin = time.perf_counter()
    value = work(**request)
    seconds = time.perf_counter() - begin
    peak = side.device_peak() or peak_bytes()
    answer = {"value": value, "seconds": seconds, "peak_bytes": peak}
    print(json.dumps(answer), file=answers, flush=True)


def forget_peak() -> None:
  """Resets the peak of resident memory, where Linux allows it.

  Without the reset the peak of decoding would be that of earlier training.
  """
  with contextlib.suppress(OSError):
    _CLEAR.write_text("5")


def peak_bytes() -> int:
  """Returns the peak of this process's resident memory, 0 if not on Linux.

  Not `ru_maxrss`, which starts at the peak of the parent process.
  """
  if not _STATUS.exists():
    return 0
  found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
  return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
  main()
