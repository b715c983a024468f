"""Loads what `convert` converts: a run, or a folder with an adapter."""

import dataclasses
import os
from pathlib import Path

from fusar_jax.hf.folders import RECORD, resolve
from fusar_jax.hf.load import load_adapted, restrict
from fusar_jax.hf.tokenizer_files import has_tokenizer
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.model.config import FusarConfig
from fusar_jax.training import provenance
from fusar_jax.training.export_record import (
  export_record,
  read_export_record,
)
from fusar_jax.training.parameters import load_run


@dataclasses.dataclass(frozen=True)
class Source:
  """A model to convert.

  Attributes:
    config, params: config and parameters of the model.
    tokenizer: folder with the tokenizer files, or None.
    base: name of the base model.
    record: provenance of the weights, see `export_record`, or None.
    generation: content of the base's generation_config.json, or None.
    base_folder: folder of the base, or None: random weights, or it is gone.
  """

  config: FusarConfig
  params: dict
  tokenizer: Path | None
  base: str
  record: dict | None = None
  generation: dict | None = None
  base_folder: Path | None = None


def load_source(
  source: str | os.PathLike,
  *,
  adapter: str | None = None,
  legacy_sigma: float | None = None,
  use_tlm: bool = True,
  step: int | None = None,
) -> Source:
  """Loads a run, or a Hugging Face folder with an adapter, to convert it.

  Args:
    source: run folder, Hugging Face folder or hub id.
    adapter, legacy_sigma, use_tlm: see `fusar_jax.load`.
    step: checkpoint of a run; default: the newest.

  Raises:
    ValueError, OSError: invalid arguments or files.
  """
  folder = resolve(source)
  if provenance.is_run(folder):
    if adapter or legacy_sigma is not None:
      raise ValueError(
        "--adapter and --legacy-sigma belong to a Hugging Face folder; a run"
        " has its own adapter."
      )
    config, params, tokenizer, info = load_run(folder, step)
    config, params = restrict(config, params, use_tlm=use_tlm)
    base = getattr(info["base"], "path", None) or str(source)
    start = provenance.base_folder(folder)
    record = export_record(folder, info["step"])
    return Source(
      config,
      params,
      _with_tokenizer(tokenizer),
      base,
      record,
      start and _generation(start),
      start,
    )
  if step is not None:
    raise ValueError(f"--step is given, but {folder} is not a run.")
  if legacy_sigma is not None and adapter is None:
    raise ValueError("--legacy-sigma belongs to an --adapter.")
  config, params = load_adapted(folder, adapter, legacy_sigma, use_tlm=use_tlm)
  return Source(
    config,
    params,
    _with_tokenizer(folder),
    str(source),
    # What was trained last: an adapter's record has its base among "ancestors".
    _record(resolve(adapter) if adapter else folder),
    generation=_generation(folder),
    base_folder=folder,
  )


def _record(folder: Path) -> dict | None:
  record = read_export_record(folder)
  if record is not None:
    with reading(folder / RECORD):  # What a model card quotes.
      base, _, _ = record["base"], record["step"], dict(record["data"])
      _ = base["path"], base["sha256"]
  return record


def _generation(folder: Path) -> dict | None:
  path = folder / "generation_config.json"
  return read_object(path) if path.is_file() else None


def _with_tokenizer(folder: Path | None) -> Path | None:
  return folder if folder and has_tokenizer(folder) else None
