"""Model folders: hub id resolution and provenance records."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.io.object_store import is_url
from fusar_jax.io.remote_folder import fetch_model

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w./-]+)?")
# Where huggingface_hub keeps what it downloads.
_SNAPSHOT = re.compile(r"models--([\w.-]+?)--([\w.-]+)")

# Provenance of an exported folder: its source run.
RECORD = "fusar_provenance.json"

# The small Qwen2.5-VL base shipped with the package; its RECORD documents how
# it was trained.
TINY_BASE = "tiny-base"
_SHIPPED = {
  TINY_BASE: Path(__file__).resolve().parent.parent / "assets" / "tiny_base"
}


def resolve(path: str | os.PathLike) -> Path:
  """Returns a local folder: `path` itself, or the download of a hub id.

  "tiny-base" is the shipped base, unless a folder of that name exists.

  A hub id is `owner/name`, or `owner/name/sub/folder` for one folder of a
  repository, as in `kkcyy/FUSAR-GPT/stage2/counting`. A folder in a bucket,
  gs://BUCKET/PATH, is copied to the cache of this user.

  Raises:
    FileNotFoundError: neither a folder nor reachable on the hub.
    OSError: a folder in a bucket, gs://BUCKET/PATH, cannot be read.
  """
  folder = Path(local_model(path)).expanduser()
  if folder.is_dir():
    return folder
  text = str(path)
  if text in _SHIPPED:
    return _SHIPPED[text]
  if folder.exists() or not _HUB_ID.fullmatch(text) or ".." in text:
    raise FileNotFoundError(
      f"{path}: expected a folder, {TINY_BASE} (the one that comes with this"
      " package), gs://BUCKET/PATH, or a hub id like owner/name."
    )
  try:
    from huggingface_hub import snapshot_download
  except ImportError as e:
    raise FileNotFoundError(
      f"{path} is not a folder. To fetch it from the Hugging Face hub, install"
      " fusar-jax[hub]."
    ) from e
  owner, name, *below = text.split("/")
  try:
    root = snapshot_download(
      f"{owner}/{name}",
      allow_patterns=["/".join([*below, "*"])] if below else None,
      # Weights are read from safetensors only.
      ignore_patterns=["*.bin", "*.gguf", "*.onnx"],
    )
  except Exception as e:  # its errors share no base class
    raise FileNotFoundError(
      f"{path} is not a folder here, and the Hugging Face hub did not give it:"
      f" {type(e).__name__}: {e}"
    ) from e
  folder = Path(root, *below)
  if not folder.is_dir():
    raise FileNotFoundError(f"{owner}/{name} has no folder {'/'.join(below)}.")
  return folder


def hub_id(folder: Path | None) -> str | None:
  """Returns owner/name of a folder in the hub's cache; None: it is none."""
  for part in Path(folder).parts if folder else ():
    if found := _SNAPSHOT.fullmatch(part):
      return f"{found[1]}/{found[2]}"
  return None


def local_model(path: str | os.PathLike) -> str | os.PathLike:
  """Returns the copy of a folder in a bucket, and any other path unchanged.

  Raises:
    FileNotFoundError: no such bucket or folder.
    OSError: the bucket cannot be read.
  """
  return fetch_model(str(path)) if is_url(path) else path


def write_record(folder: Path, record: Mapping[str, Any] | None) -> None:
  """Writes RECORD into a folder that is being made; nothing for None."""
  if record is not None:
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
