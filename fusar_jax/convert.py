"""Converts between runs, Hugging Face folders and official adapter folders.

Full model with merged LoRA, for transformers (TLM in separate files):
  python -m fusar_jax.convert --from BASE --adapter FOLDER --to OUT
Adapter only, for peft and the official code:
  python -m fusar_jax.convert --from runs/stage2 --to OUT --adapter-only
A legacy official adapter, which does not record its sigma:
  python -m fusar_jax.convert --from BASE --adapter FOLDER --legacy-sigma 2 \
      --to OUT
Write a folder, check it, and upload it to the Hugging Face hub:
  python -m fusar_jax.convert --from runs/stage2 --to OUT --scores SCORES \
      --push-to-hub OWNER/NAME --private
Upload a folder that was written before, or list what would be uploaded:
  python -m fusar_jax.convert --to OUT --push-to-hub OWNER/NAME --dry-run
Contents of a folder, without reading its weights:
  python -m fusar_jax.convert --inspect PATH
"""

import argparse
import sys
from pathlib import Path

from fusar_jax import command_line

# Options of what --from writes.
_OF_FROM = (
  "adapter",
  "adapter_only",
  "base_name",
  "dtype",
  "legacy_sigma",
  "max_shard_gb",
  "merge",
  "overwrite",
  "scores",
  "step",
  "tokenizer",
  "use_tlm",
)


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("convert", __doc__)
  what = p.add_mutually_exclusive_group()
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
    " can load; default: BASE, or the base of the run; of a folder that came"
    " from the hub, its id",
  )
  p.add_argument(
    "--tokenizer",
    metavar="FOLDER",
    help="folder of the tokenizer to export; default: that of BASE",
  )
  p.add_argument(
    "--overwrite", action="store_true", help="replace the contents of OUT"
  )
  p.add_argument(
    "--scores",
    metavar="FOLDER",
    help="folder of `evaluate --out`, whose scores the model card shows;"
    " default: RUN/scores of a run that has it",
  )
  hub = p.add_argument_group("Hugging Face hub")
  hub.add_argument(
    "--push-to-hub",
    metavar="OWNER/NAME",
    help="upload OUT in one commit, after checking that it is complete, loads,"
    " and names no path of this machine; the token is that of HF_TOKEN or"
    " `hf auth login`",
  )
  hub.add_argument(
    "--private", action="store_true", help="create the repository private"
  )
  hub.add_argument(
    "--revision", metavar="BRANCH", help="branch to upload to; default: main"
  )
  hub.add_argument(
    "--dry-run",
    action="store_true",
    help="check OUT and list the files and their sizes, without a network",
  )
  return p


def _convert(args: argparse.Namespace) -> None:
  if args.inspect:
    from fusar_jax.report.folder_summary import describe  # imports JAX

    print(describe(args.inspect))
    return
  _check(args)
  if args.source is not None:
    _write(args)
  if args.push_to_hub is not None:
    _push(args)


def _check(args: argparse.Namespace) -> None:
  if args.source is None and args.push_to_hub is None:
    raise command_line.UsageError(
      "give one of --from, --inspect, --push-to-hub"
    )
  if args.source is None and (ignored := _given(args, _OF_FROM)):
    raise command_line.UsageError(
      f"{', '.join(ignored)}: without --from nothing is written, the model card"
      " included"
    )
  if args.push_to_hub is None and (
    args.private or args.revision or args.dry_run
  ):
    raise command_line.UsageError(
      "--private, --revision and --dry-run belong to --push-to-hub"
    )
  if args.to is None:
    raise ValueError("--to is missing: the folder to create, or to upload.")
  if not args.max_shard_gb > 0:
    raise ValueError(f"--max-shard-gb {args.max_shard_gb} must be positive.")
  if args.push_to_hub is not None:
    from fusar_jax.hf.hub_push import check_name

    check_name(args.push_to_hub)  # Before hours of work.


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> list[str]:
  defaults = parser()
  return [
    f"--{name.replace('_', '-').replace('use-tlm', 'no-tlm')}"
    for name in names
    if getattr(args, name) != defaults.get_default(name)
  ]


def _push(args: argparse.Namespace) -> None:
  from fusar_jax.hf import hub_push

  folder = Path(args.to)
  if not folder.is_dir():
    raise FileNotFoundError(
      f"{folder} not found: expected a folder that --from has written."
    )
  hub_push.check_folder(folder)
  files = hub_push.files_to_push(folder)
  for name, size in files:
    print(f"{size:>15,}  {name}")
  total = sum(size for _, size in files)
  print(f"{total:>15,}  bytes in {len(files)} files, complete and readable")
  if args.dry_run:
    print(f"nothing was uploaded to {args.push_to_hub} (--dry-run)")
    return
  to = hub_push.Repository(args.push_to_hub, args.private, args.revision)
  print(f"uploaded: {hub_push.push(folder, to, 'Upload by fusar_jax')}")


def _write(args: argparse.Namespace) -> None:
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.hf import peft, tlm_file
  from fusar_jax.hf.card_scores import METRICS, read_scores
  from fusar_jax.hf.export import export_merged
  from fusar_jax.hf.folders import hub_id, resolve
  from fusar_jax.hf.licence_files import read_terms
  from fusar_jax.hf.model_card import Publication
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
  scores = args.scores
  if scores is None and (Path(args.source) / "scores" / METRICS).is_file():
    scores = Path(args.source) / "scores"
  base = args.base_name or hub_id(source.base_folder)
  about = Publication(
    base,
    read_terms(source.base_folder),
    None if scores is None else read_scores(scores),
    record=source.record,
    applied=read_terms(resolve(args.adapter)) if args.adapter else None,
  )
  if scores is not None:
    print(f"scores of the model card: {scores}")
  if args.adapter_only:
    peft.write_adapter(
      args.to,
      source.config,
      source.params,
      base or source.base,
      tokenizer=tokenizer,
      overwrite=args.overwrite,
      about=about,
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
    about=about,
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
      f"the TLM is in {tlm_file.WEIGHTS}: transformers gives the unmodulated"
      " model, with trust_remote_code=True the modulated one"
    )


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _convert, argv)


if __name__ == "__main__":
  sys.exit(main())
