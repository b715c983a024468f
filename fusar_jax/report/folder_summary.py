"""Summary of a run, a Hugging Face folder or an adapter, for a terminal.

Reads settings and the headers of weight files, never the weights.
"""

import dataclasses
import math
from pathlib import Path

import jax

from fusar_jax.hf import image_text_file, mapping, peft, tlm_file
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.folders import RECORD, resolve
from fusar_jax.hf.weights import Weights, weight_files
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import abstract_params
from fusar_jax.training import provenance
from fusar_jax.training.export_record import export_record


def describe(path: str | Path) -> str:
  """Returns a summary of a folder: kind, sizes, layout, adapter, TLM.

  Raises:
    FileNotFoundError: not a folder of a known kind.
    ValueError: a malformed file in it.
  """
  folder = resolve(path)
  if provenance.is_run(folder):
    lines = _describe_run(folder)
  elif (folder / peft.SETTINGS).is_file():
    lines = _describe_adapter(folder)
  else:
    lines = _describe_model(folder)
  lines += describe_record(folder)
  return "\n".join([f"{path}: {lines[0]}", *(f"  {x}" for x in lines[1:])])


def describe_record(folder: Path) -> list[str]:
  """Returns provenance lines; empty for folders of other tools."""
  if provenance.is_run(folder):
    step = provenance.latest_step(folder)
    record = export_record(folder, step or 0)
  elif (folder / RECORD).is_file():
    record = read_object(folder / RECORD)
  else:
    return []
  with reading(folder):
    return _describe_origin(record)


def _describe_origin(record) -> list[str]:
  base = record["base"]
  origin = base["path"] or f"random weights, seed {record['config']['seed']}"
  if base["sha256"]:
    origin += f" (sha256 {base['sha256'][:12]})"
  dtype = record["config"]["dtype"]["frozen"]
  if dtype in ("int8", "nf4"):
    origin += f", layers quantised to {dtype} during training"
  lines = [f"trained      {record['step']} steps from {origin}"]
  for use, manifests in record["data"].items():
    for manifest in manifests:
      about = manifest["dataset"] or {}
      terms = "; ".join(
        str(about[key] or f"{key} unknown")
        for key in ("source", "license")
        if key in about
      )
      lines.append(
        f"{use:<12} {manifest['path']} (sha256 {manifest['sha256'][:12]})"
        + (f": {terms}" if terms else "")
      )
  return lines


def _describe_run(folder: Path) -> list[str]:
  config = provenance.read_model_config(folder)
  steps = [p.name for p in folder.glob("checkpoints/*") if p.name.isdigit()]
  return [
    "a run of fusar_jax.train",
    f"checkpoints  {', '.join(sorted(steps, key=int)) or 'none'}",
    *_describe_config(config),
  ]


def _describe_model(folder: Path) -> list[str]:
  config = read_config(folder)
  if tlm_file.has_tlm(folder):
    config, _ = tlm_file.read_tlm(folder, config)
  elif size := image_text_file.read_image_text(folder):
    config = dataclasses.replace(config, image_size=size)
  files = weight_files(folder)
  weights = Weights(files)
  found = list(weights.found())
  dtypes = sorted({str(weights.dtype(item)) for item in found})
  size = sum(file.stat().st_size for file in files)
  return [
    "a Hugging Face model folder",
    f"layout       {mapping.layout(item.name for item in found)}",
    f"weights      {len(found)} tensors, {'/'.join(dtypes)}, {size:,} bytes in"
    f" {len(files)} file(s)",
    *_describe_config(config),
  ]


def _describe_config(config: FusarConfig) -> list[str]:
  v, d, lora = config.vision, config.decoder, config.lora
  counts = parameter_counts(config)
  lines = [
    f"tower        {v.depth} blocks of {v.hidden_size}, full attention in"
    f" {list(v.full_attention)}",
    f"decoder      {d.layers} layers of {d.hidden_size}, {d.heads} heads"
    f" ({d.kv_heads} kv), {d.vocab} tokens,"
    f" {'tied' if d.tie_word_embeddings else 'own'} head",
    _describe_size(config.image_size),
  ]
  if config.tlm:
    lines.append(
      f"fusion       {config.tlm.fusion}, sigma {config.tlm.sigma:g}, hidden"
      f" width {config.tlm.hidden(v.out_width)}"
    )
  if lora.rank:
    lines += _describe_lora(lora)
  named = ", ".join(f"{part} {n:,}" for part, n in counts.items() if n)
  return [*lines, f"parameters   {sum(counts.values()):,} ({named})"]


def _describe_size(size: tuple[int, int] | None) -> str:
  return f"image        {f'{size[0]} x {size[1]}' if size else 'own size'}"


def _describe_lora(lora) -> list[str]:
  return [
    f"LoRA         rank {lora.rank}, alpha {lora.alpha:g}, dropout"
    f" {lora.dropout:g}",
    f"  language   {' '.join(lora.language) or 'none'}",
    f"  vision     {' '.join(lora.vision) or 'none'}",
  ]


def _describe_adapter(folder: Path) -> list[str]:
  settings = read_object(folder / peft.SETTINGS)
  weights = Weights([folder / peft.WEIGHTS])
  found = list(weights.found())
  count = sum(math.prod(item.shape) for item in found)
  lines = [
    "a PEFT adapter folder",
    f"layout       {mapping.layout(item.name for item in found)}",
    f"base         {settings.get('base_model_name_or_path')}",
    *_describe_lora(peft.lora_config(folder / peft.SETTINGS, settings, found)),
    f"parameters   {count:,} in {len(found)} tensors",
  ]
  if (folder / tlm_file.SETTINGS).is_file():
    tlm = read_object(folder / tlm_file.SETTINGS)
    about = ", ".join(f"{k} {v}" for k, v in tlm.items() if k != "format")
    lines.append(f"TLM          {about}")
  elif tlm_file.has_tlm(folder):
    lines.append("TLM          legacy: needs --legacy-sigma 2")
  elif size := image_text_file.read_image_text(folder):
    lines += ["TLM          none", _describe_size(size)]
  return lines


def parameter_counts(config: FusarConfig) -> dict[str, int]:
  """Returns the number of parameters of each part, from shapes alone."""
  parts = ("visual", "tlm", "model", "lm_head", "lora")
  counts: dict[str, int] = dict.fromkeys(parts, 0)
  for path, shape in mapping.leaf_shapes(config).items():
    counts[path.partition("/")[0]] += math.prod(shape)
  for shape in mapping.leaf_shapes(config, adapter=True).values():
    counts["lora"] += math.prod(shape)
  if config.tlm:
    shapes = abstract_params(config)
    counts["tlm"] += sum(leaf.size for leaf in jax.tree.leaves(shapes["tlm"]))
  return counts
