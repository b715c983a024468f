"""Converts between runs, Hugging Face folders and official adapter folders.

Full model with merged LoRA, for transformers (TLM in separate files):
  python -m fusar_jax.convert --from BASE --adapter FOLDER --to OUT
Adapter only, for peft and the official code:
  python -m fusar_jax.convert --from runs/stage2 --to OUT --adapter-only
A legacy official adapter, which does not record its sigma:
  python -m fusar_jax.convert --from BASE --adapter FOLDER --legacy-sigma 2 \
      --to OUT
Contents of a folder, without reading its weights:
  python -m fusar_jax.convert --inspect PATH
"""

import argparse
import sys
from pathlib import Path

from fusar_jax import command_line


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("convert", __doc__)
  what = p.add_mutually_exclusive_group(required=True)
  what.add_argument(
    "--from",
    dest="source",
    metavar="BASE",
    help="run folder, Hugging Face folder, or hub id (owner/name)",
  )
  what.add_argument(
    "--inspect", metavar="PATH", help="print the contents of a folder and exit"
  )
  p.add_argument(
    "--adapter",
    metavar="FOLDER",
    help="PEFT or official FUSAR-GPT adapter to apply to BASE",
  )
  p.add_argument(
    "--legacy-sigma",
    type=float,
    metavar="SIGMA",
    help="for official adapters without tlm_config.json: 2",
  )
  p.add_argument(
    "--no-tlm",
    dest="use_tlm",
    action="store_false",
    help="omit the TLM: base and LoRA only",
  )
  p.add_argument("--to", metavar="OUT", help="folder to create")
  mode = p.add_mutually_exclusive_group()
  mode.add_argument(
    "--merge",
    action="store_true",
    help="write the full model, LoRA merged in float32 (the default)",
  )
  mode.add_argument(
    "--adapter-only",
    action="store_true",
    help="write LoRA and TLM in the official adapter format",
  )
  p.add_argument(
    "--step", type=int, help="checkpoint of a run; default: the newest"
  )
  p.add_argument(
    "--dtype",
    choices=("float32", "bfloat16", "float16"),
    help="dtype of the merged weights; default: unchanged",
  )
  p.add_argument(
    "--max-shard-gb",
    type=float,
    default=4.0,
    metavar="GB",
    help="maximum size of a weight file, in GB (default: %(default)s)",
  )
  p.add_argument(
    "--base-name",
    metavar="NAME",
    help="base model name in adapter_config.json: a folder or hub id that peft"
    " can load; default: BASE, or the base of the run",
  )
  p.add_argument(
    "--tokenizer",
    metavar="FOLDER",
    help="folder of the tokenizer to export; default: that of BASE",
  )
  p.add_argument(
    "--overwrite", action="store_true", help="replace the contents of OUT"
  )
  return p


def _convert(args: argparse.Namespace) -> None:
  if args.inspect:
    from fusar_jax.report.folder_summary import describe  # imports JAX

    print(describe(args.inspect))
    return
  if args.to is None:
    raise ValueError("--to is missing: the folder to create.")
  if not args.max_shard_gb > 0:
    raise ValueError(f"--max-shard-gb {args.max_shard_gb} must be positive.")
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.hf import peft, tlm_file
  from fusar_jax.hf.export import export_merged
  from fusar_jax.platforms import check_platforms
  from fusar_jax.training.model_source import load_source

  check_platforms()
  source = load_source(
    args.source,
    adapter=args.adapter,
    legacy_sigma=args.legacy_sigma,
    use_tlm=args.use_tlm,
    step=args.step,
  )
  tokenizer = Path(args.tokenizer) if args.tokenizer else source.tokenizer
  if args.adapter_only:
    peft.write_adapter(
      args.to,
      source.config,
      source.params,
      args.base_name or source.base,
      tokenizer=tokenizer,
      overwrite=args.overwrite,
      record=source.record,
    )
    print(f"adapter of rank {source.config.lora.rank} in {args.to}")
    return
  done = export_merged(
    args.to,
    source.config,
    source.params,
    dtype=args.dtype,
    max_shard_bytes=int(args.max_shard_gb * 1e9),
    tokenizer=tokenizer,
    generation=source.generation,
    overwrite=args.overwrite,
    record=source.record,
  )
  print(
    f"{done.parameters:,} parameters in {len(done.files)} file(s) in {args.to}"
  )
  if source.config.lora.rank:
    print(
      f"merging in float32 and rounding moved a weight by {done.rounding:.1e}"
      " of its kernel's largest at most"
    )
  if source.config.tlm is not None:
    print(
      f"the TLM is in {tlm_file.WEIGHTS}: transformers alone gives the"
      " unmodulated model"
    )


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _convert, argv)


if __name__ == "__main__":
  sys.exit(main())
