"""The folder of a run: new, resumable, or foreign.

Nothing is written before all inputs are validated. provenance.json is written
last: it marks a run that can be resumed.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from fusar_jax import config as config_lib
from fusar_jax.data import prompts
from fusar_jax.data import tokenizer as tokenizer_lib
from fusar_jax.data.triplets import Triplet
from fusar_jax.io import atomic_write
from fusar_jax.io.strict_json import reading
from fusar_jax.model.config import FusarConfig
from fusar_jax.training import bucket_workdir, provenance
from fusar_jax.training.provenance import Source
from fusar_jax.training.run_config import RunConfig

# Fields that may change on resume: they do not change what is computed.
_FREE = (
  "data.num_workers",
  "mesh",
  "remat",
  "attention",
  "data.visual_cache_gb",
  "head_chunk",
  "offload_optimizer",
  "log_every_steps",
  "metric_writers",
  "eval_every_steps",
  "save_every_steps",
  "keep",
  "keep_best_by",
  "patience",
  "skip_nonfinite",
  "profile_at_step",
  "profile_steps",
  "compile_cache",
)
# What a run did that was begun before the field existed.
_NEWER = {"data.chip_shift": 0.0}
TOKENIZER = "tokenizer"
# Hashes of `data_hashes.describe_data`.
_OF_DATA = (
  "sha256",
  *("sizes of images", "sizes of anchors"),
  *("content of images", "content of anchors"),
)


def resumes(config: RunConfig, workdir: Path) -> bool:
  """Returns True to resume, False to start; raises for a foreign workdir."""
  if workdir.exists() and not workdir.is_dir():
    raise FileExistsError(f"--workdir {workdir} is a file.")
  path = workdir / provenance.CONFIG_FILE
  # A run that is killed this early leaves only partial files of config.json.
  if not workdir.is_dir() or all(
    p.suffix == atomic_write.PARTIAL_SUFFIX for p in workdir.iterdir()
  ):
    return False
  if not path.is_file():
    raise FileExistsError(
      f"--workdir {workdir} is not empty and holds no run. Choose another"
      " folder, or empty it."
    )
  if provenance.is_run(workdir):
    provenance.read(workdir)  # Raises for files that have changed.
  before = _NEWER | _flat(provenance.read_settings(workdir))
  now = _flat(config.to_json())
  changed = [
    f"  config.{name}: {before.get(name)} there, {now.get(name)} now"
    for name in sorted(before | now)
    if before.get(name) != now.get(name) and not name.startswith(_FREE)
  ]
  if changed:
    raise FileExistsError(
      f"--workdir {workdir} holds a run with another config:\n"
      + "\n".join(changed)
      + "\nTo resume it, give its own config; else choose another folder."
    )
  return provenance.is_run(workdir)


def recorded(workdir: Path, data: Mapping) -> tuple[Source, Source]:
  record = provenance.read(workdir)
  with reading(workdir / provenance.PROVENANCE_FILE):
    changed = [
      now["path"] if key == "sha256" else f"{now['path']} ({key})"
      for name, manifests in data.items()
      for before, now in zip(record["data"].get(name, []), manifests)
      for key in _OF_DATA
      # Older runs lack some of them.
      if key in before and key in now and before[key] != now[key]
    ]
  if changed:
    raise ValueError(
      f"{', '.join(changed)}: changed since {workdir} was begun, so a resumed"
      " run would see other examples. Restore the files, or begin a new run."
    )
  return provenance.sources_of(record, workdir)


def write(
  config: RunConfig,
  workdir: Path,
  model: FusarConfig,
  tokenizer: tokenizer_lib.Tokenizer | None,
  triplets: list[Triplet],
  records: tuple[Source, Source, Mapping],
) -> None:
  """Writes config.json, tokenizer/ and provenance.json of a new run.

  Without a tokenizer, trains one on the triplets.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  provenance.write_json(
    workdir / provenance.CONFIG_FILE,
    {"config": config.to_json(), "model": config_lib.to_dict(model)},
  )
  if tokenizer is not None:
    tokenizer.save(workdir / TOKENIZER)
  else:
    tokenizer_lib.train_sentencepiece(
      (text for row in triplets for text in _texts(row)),
      workdir / TOKENIZER / "tokenizer.model",
      vocab_size=model.decoder.vocab,
      # Boxes are in pixels of the resized image.
      numbers=max(model.image_size or (0,)) + 1,
    )
  # Written last: it marks a resumable run.
  provenance.write_json(
    workdir / provenance.PROVENANCE_FILE,
    provenance.provenance(*records)
    | {"files": provenance.file_hashes(workdir)},
  )
  bucket_workdir.push(workdir)


def undo(workdir: Path) -> None:
  """Removes the files of `write` when the run cannot start."""
  if jax.process_index() != 0:
    return
  for name in (provenance.CONFIG_FILE, provenance.PROVENANCE_FILE):
    (workdir / name).unlink(missing_ok=True)
  shutil.rmtree(workdir / TOKENIZER, ignore_errors=True)
  if not any(workdir.iterdir()):
    workdir.rmdir()


def _texts(row: Triplet) -> tuple[str, ...]:
  """Returns the texts of a row, chat template included."""
  return (
    f"system\n{prompts.SYSTEM}",
    *(f"user\n{turn.question}" for turn in row.history),
    *(f"assistant\n{turn.answer}" for turn in row.history),
    f"user\n{row.question}",
    f"assistant\n{row.answer}",
  )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= _flat(value, f"{prefix}{name}.")
    else:
      if prefix in ("model.vision.", "model.decoder."):
        # A run of an old release.
        name = config_lib.RENAMED.get(name, name)
      flat[prefix + name] = value
  return flat
