"""Runs the whole way at real size, with random weights, and measures it.

A checkpoint of a preset in the published layout (bfloat16, several files) goes
through the commands that users run: a step of stage 1, a step of stage 2,
predict, convert to a merged folder and to an adapter. Then this package and
transformers each load the merged folder, and their logits and greedy tokens
are compared. Of each command: seconds, processor seconds, peak memory.

    python tests/scale/run.py --preset qwen2_5_vl_3b --out runs/scale_3b
    python tests/scale/run.py --preset qwen2_5_vl_7b --out runs/scale_7b \
        --only load,export --dtype bfloat16 --tokens 4

Needs torch, transformers and peft for the comparison. The same command
continues; what is finished is not repeated. Results: OUT/results.json.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = Path(__file__).with_name("steps.py")
# Steps by group; --only names groups.
GROUPS = ("train", "export", "load")


@dataclasses.dataclass(frozen=True)
class Step:
  """One process: its name, arguments of Python, and what it leaves."""

  name: str
  group: str
  arguments: tuple
  output: Path


def main() -> int:
  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--preset", default="qwen2_5_vl_3b")
  options.add_argument("--out", type=Path, required=True)
  options.add_argument(
    "--only",
    default=",".join(GROUPS),
    help="groups, with commas (default: %(default)s)",
  )
  options.add_argument(
    "--dtype",
    default="float32",
    choices=("float32", "bfloat16"),
    help="of the comparison; 7B in float32 takes 31 GB in transformers",
  )
  options.add_argument("--image-size", type=int, default=504)
  options.add_argument(
    "--tokens",
    type=int,
    default=17,
    help="generated to measure decoding (default: %(default)s)",
  )
  args = options.parse_args()
  if args.tokens < 2:
    options.error(f"--tokens {args.tokens}: expected at least 2")
  groups = args.only.split(",")
  if unknown := set(groups) - set(GROUPS):
    options.error(f"--only {sorted(unknown)}: expected {', '.join(GROUPS)}")
  args.out.mkdir(parents=True, exist_ok=True)
  results = _read(args.out / "results.json")
  for step in _steps(args, "train" in groups):
    if step.group and step.group not in groups:
      continue
    if step.output.exists() and step.name in results:
      print(f"{step.name}: done before", flush=True)
      continue
    measured = _run(step, args.out / f"{step.name}.log")
    results[step.name] = measured
    _write(args.out / "results.json", results)
    print(step.name, json.dumps(measured), flush=True)
  if "load" in groups:
    agreement = _compare(args.out)
    results["agreement"] = agreement
    _write(args.out / "results.json", results)
    print("agreement", json.dumps(agreement))
  return 0


def _steps(args, trained: bool) -> list[Step]:
  out = args.out
  base, data = out / "base", out / "data"
  stage1, stage2 = out / "stage1", out / "stage2"
  merged = out / "merged"
  size = args.image_size

  def train(stage: str, init: Path, rows: str) -> Step:
    return Step(
      f"train_{stage}",
      "train",
      (
        *("-m", "fusar_jax.train"),
        "--config",
        ROOT / "configs" / f"{stage}.py:model=init",
        f"--config.init={init}",
        f"--config.data.train={data / rows}",
        f"--config.model.image_size=({size},{size})",
        *("--config.batch_size=1", "--config.accumulation=1"),
        *("--config.steps=1", "--config.data.num_workers=0"),
        "--config.dtype.compute=float32",
        *("--workdir", out / stage),
      ),
      out / stage / "checkpoints",
    )

  source = stage2 if trained else base
  return [
    Step("write", "", (STEPS, "write", args.preset, base, size), base),
    Step(
      "simulate",
      "train",
      ("-m", "fusar_jax.simulate", "--out", data, "--scenes", 4),
      data / "dataset.json",
    ),
    train("stage1", base, "captions.jsonl"),
    train("stage2", stage1, "tasks.jsonl"),
    Step(
      "predict",
      "train",
      (
        *("-m", "fusar_jax.predict"),
        *("--model", stage2, "--data", data / "tasks.jsonl"),
        *("--out", out / "predictions", "--limit", 1),
        *("--batch-size", 1, "--max-new-tokens", 4),
      ),
      out / "predictions" / "predictions.jsonl",
    ),
    Step(
      "export_adapter",
      "train",
      (
        *("-m", "fusar_jax.convert"),
        *("--from", stage2, "--to", out / "adapter", "--adapter-only"),
      ),
      out / "adapter",
    ),
    Step(
      "export_merged",
      "export",
      ("-m", "fusar_jax.convert", "--from", source, "--to", merged),
      merged,
    ),
    *(
      Step(
        side,
        "load",
        (
          *(STEPS, side, merged, args.dtype, size, args.tokens),
          out / f"{side}.npz",
        ),
        out / f"{side}.npz",
      )
      for side in ("ours", "transformers")
    ),
  ]


def _run(step: Step, log: Path) -> dict:
  """Returns what the process took; raises RuntimeError if it failed."""
  if step.output.is_dir():  # unfinished, or of a run without its result
    shutil.rmtree(step.output)
  began = time.monotonic()
  with log.open("w") as file:
    process = subprocess.Popen(
      [sys.executable, *map(str, step.arguments)],
      stdout=file,
      stderr=subprocess.STDOUT,
      cwd=ROOT,
      env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    # Of this child alone. Its maximum begins at that of this process, which
    # imports nothing large.
    _, status, usage = os.wait4(process.pid, 0)
  if status:
    raise RuntimeError(
      f"{step.name} failed ({os.waitstatus_to_exitcode(status)}); {log}:\n"
      + log.read_text()[-3000:]
    )
  return {
    "seconds": round(time.monotonic() - began, 1),
    "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 2),
    **_last_json(log),
  }


def _last_json(log: Path) -> dict:
  """Returns what the process measured itself, its last line, or nothing."""
  lines = log.read_text().splitlines()
  return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}


def _compare(out: Path) -> dict:
  import numpy as np

  ours, theirs = (np.load(out / f"{s}.npz") for s in ("ours", "transformers"))
  difference = np.abs(ours["logits"] - theirs["logits"]).max()
  return {
    "largest_difference": float(difference),
    "standard_deviation": float(theirs["logits"].std()),
    "equal_greedy_tokens": bool((ours["tokens"] == theirs["tokens"]).all()),
    "equal_argmax": float(
      (ours["logits"].argmax(-1) == theirs["logits"].argmax(-1)).mean()
    ),
  }


def _read(path: Path) -> dict:
  return json.loads(path.read_text()) if path.exists() else {}


def _write(path: Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
  sys.exit(main())
