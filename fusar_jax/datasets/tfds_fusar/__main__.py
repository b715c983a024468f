"""`python -m fusar_jax.datasets.tfds_fusar`: manifests to a TFDS data set."""

import argparse
import sys
from collections.abc import Sequence

from fusar_jax import command_line


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
  return command_line.run(parser, _build, argv)


def _build(args: argparse.Namespace) -> None:
  manifests = {}
  for split in args.split:
    name, _, manifest = split.partition("=")
    if not name or not manifest or name in manifests:
      raise command_line.UsageError(
        f"--split {split}: expected NAME=MANIFEST, each name once"
      )
    manifests[name] = manifest
  if args.shards is not None and args.shards < 1:
    raise command_line.UsageError(
      f"--shards {args.shards}: expected at least 1"
    )
  from fusar_jax.datasets.tfds_fusar.builder import build  # imports TFDS

  beam = args.beam and [f"--{option}" for option in args.beam]
  folder = build(manifests, args.out, shards=args.shards, beam=beam)
  print(f"{folder}: {', '.join(f'{folder}/{name}' for name in manifests)}")


if __name__ == "__main__":
  sys.exit(main())
