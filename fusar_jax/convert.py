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
import dataclasses
import sys
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.hf import peft, tlm_file
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.folders import resolve
from fusar_jax.hf.load import load_adapted, restrict
from fusar_jax.hf.tokenizer_files import has_tokenizer
from fusar_jax.io.strict_json import read_object
from fusar_jax.model.config import FusarConfig
from fusar_jax.platforms import check_platforms
from fusar_jax.report.folder_summary import describe, parameter_counts
from fusar_jax.training import provenance

__all__ = ["describe", "main", "parameter_counts", "parser"]


@dataclasses.dataclass(frozen=True)
class Source:
  """A model to convert.

  Attributes:
    config, params: config and parameters of the model.
    tokenizer: folder with the tokenizer files, or None.
    base: name of the base model.
    record: provenance of the source run, see `provenance.portable`, or None.
    generation: content of the base's generation_config.json, or None.
  """

  config: FusarConfig
  params: dict
  tokenizer: Path | None
  base: str
  record: dict | None = None
  generation: dict | None = None


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
    print(describe(args.inspect))
    return
  if args.to is None:
    raise ValueError("--to is missing: the folder to create.")
  if not args.max_shard_gb > 0:
    raise ValueError(f"--max-shard-gb {args.max_shard_gb} must be positive.")
  check_platforms()
  source = _load(args)
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


def _load(args: argparse.Namespace) -> Source:
  folder = resolve(args.source)
  if provenance.is_run(folder):
    if args.adapter or args.legacy_sigma is not None:
      raise ValueError(
        "--adapter and --legacy-sigma belong to a Hugging Face folder; a run"
        " has its own adapter."
      )
    from fusar_jax.training.parameters import load_run  # brings Orbax

    config, params, tokenizer, info = load_run(folder, args.step)
    config, params = restrict(config, params, use_tlm=args.use_tlm)
    base = getattr(info["base"], "path", None) or str(args.source)
    start = provenance.base_folder(folder)
    record = provenance.portable(folder, info["step"])
    return Source(
      config,
      params,
      _with_tokenizer(tokenizer),
      base,
      record,
      start and _generation(start),
    )
  if args.step is not None:
    raise ValueError(f"--step is given, but {folder} is not a run.")
  if args.legacy_sigma is not None and args.adapter is None:
    raise ValueError("--legacy-sigma belongs to an --adapter.")
  config, params = load_adapted(
    folder, args.adapter, args.legacy_sigma, use_tlm=args.use_tlm
  )
  return Source(
    config,
    params,
    _with_tokenizer(folder),
    str(args.source),
    generation=_generation(folder),
  )


def _generation(folder: Path) -> dict | None:
  path = folder / "generation_config.json"
  return read_object(path) if path.is_file() else None


def _with_tokenizer(folder: Path | None) -> Path | None:
  return folder if folder and has_tokenizer(folder) else None


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _convert, argv)


if __name__ == "__main__":
  sys.exit(main())
