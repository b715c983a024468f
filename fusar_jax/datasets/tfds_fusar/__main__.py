"""`python -m fusar_jax.datasets.tfds_fusar`: manifests to a TFDS data set."""

import argparse
import sys
from collections.abc import Sequence

from fusar_jax.datasets.tfds_fusar.builder import build


def main(argv: Sequence[str] | None = None) -> int:
  """Command line; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.datasets.tfds_fusar",
    description="Manifests to a TFDS data set, one split each.",
  )
  parser.add_argument(
    "--split",
    required=True,
    action="append",
    metavar="NAME=MANIFEST",
    help="train=data/manifest.jsonl; may be given again for another split",
  )
  parser.add_argument("--out", required=True, help="TFDS's data_dir")
  parser.add_argument(
    "--shards", type=int, help="of each split; default: as TFDS sees fit"
  )
  parser.add_argument(
    "--beam",
    nargs="*",
    metavar="OPTION=VALUE",
    help="build with Apache Beam, with these options of its pipeline:"
    " runner=DataflowRunner project=P ...; default runner: DirectRunner",
  )
  args = parser.parse_args(argv)
  manifests = {}
  for split in args.split:
    name, _, manifest = split.partition("=")
    if not name or not manifest or name in manifests:
      parser.error(f"--split {split}: expected NAME=MANIFEST, each name once")
    manifests[name] = manifest
  if args.shards is not None and args.shards < 1:
    parser.error(f"--shards {args.shards}: expected at least 1")
  beam = args.beam and [f"--{option}" for option in args.beam]
  try:
    folder = build(manifests, args.out, shards=args.shards, beam=beam)
  except (ValueError, OSError, ImportError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  print(f"{folder}: {', '.join(f'{folder}/{name}' for name in manifests)}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
