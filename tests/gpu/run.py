"""What a CUDA machine has to show: equality with a CPU, then speed and memory.

    make gpu
    python tests/gpu/run.py --presets tiny --platform cpu   # as CI does

1. Attention in bfloat16, each implementation of the platform against float32
   on the CPU; gradients too.
2. Twenty steps of stage 1 of the tiny base, float32: losses beside those of a
   CPU, within 1e-3.
3. Per preset: `bench --dtype bfloat16`, steps of stages 1 and 2 and decoding
   beside transformers and peft in the same session, weights random.

Needs no network. Results are kept in OUT/results.json and OUT/PRESET.jsonl; the
same command continues.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKS = Path(__file__).with_name("checks.py")
_WORKS = "train-stage1,train-stage2,decode-one,decode-16"


def main() -> int:
  options = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  options.add_argument("--out", type=Path, default=ROOT / "runs" / "gpu")
  options.add_argument("--platform", default="cuda", choices=("cuda", "cpu"))
  options.add_argument(
    "--presets", default="qwen2_5_vl_3b,qwen2_5_vl_7b", help="with commas"
  )
  options.add_argument("--works", default=_WORKS, help="of bench, with commas")
  options.add_argument("--rounds", type=int, default=3)
  options.add_argument("--tokens", type=int, default=64)
  options.add_argument("--length", type=int, default=509)
  options.add_argument("--answer", type=int, default=60)
  args = options.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  path = args.out / "results.json"
  results = json.loads(path.read_text()) if path.exists() else {}
  for check in ("attention", "training"):
    if check in results:
      print(f"{check}: done before", flush=True)
      continue
    results[check] = _check(check, args.platform, args.out)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(check, json.dumps(results[check]), flush=True)
  for preset in args.presets.split(","):
    sizes = [
      *("--rounds", args.rounds, "--tokens", args.tokens),
      *("--length", args.length, "--answer", args.answer),
    ]
    works = [
      text for work in args.works.split(",") for text in ("--only", work)
    ]
    file = args.out / f"{preset}.jsonl"
    command = ["-m", "fusar_jax.bench", "--preset", preset, "--out", file]
    _run(args.platform, *command, "--dtype", "bfloat16", *sizes, *works)
  return 0


def _check(name: str, platform: str, out: Path) -> dict:
  """Returns what checks.py measured; it fails beyond its tolerances."""
  file = out / f"{name}.json"
  # The reference is the CPU: by default a GPU's float32 products have 19 bits.
  platforms = "cpu" if platform == "cpu" else f"{platform},cpu"
  _run(platforms, CHECKS, name, file)
  return json.loads(file.read_text())


def _run(platforms: str, *arguments) -> None:
  subprocess.run(
    [sys.executable, *map(str, arguments)],
    check=True,
    cwd=ROOT,
    env=os.environ | {"JAX_PLATFORMS": platforms, "PYTHONPATH": str(ROOT)},
  )


if __name__ == "__main__":
  sys.exit(main())
