"""One side in a process of its own: a request a line in, an answer a line out.

A process each keeps the peak memories apart, and neither library's threads and
caches disturb the other's.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--side", choices=("ours", "torch"), required=True)
  parser.add_argument("--folder", type=Path, required=True)
  args = parser.parse_args()
  # Whatever a library prints must not mix with the answers.
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  if args.side == "ours":
    from fusar_jax.benchmark.ours import Ours as Side
  else:
    from fusar_jax.benchmark.reference import Reference as Side
  side = Side(args.folder)
  for line in sys.stdin:
    request = json.loads(line)
    work = getattr(side, request.pop("do"))
    begin = time.perf_counter()
    value = work(**request)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    answer = {"value": value, "seconds": seconds, "peak_bytes": peak}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
  main()
