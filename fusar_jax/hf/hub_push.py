"""Uploads an exported folder to the Hugging Face hub, after checking it.

The folder must be complete, must load, and must not name this machine: it is
public, or may become so. All files enter in one commit; files that the hub has
already are not sent again, so an upload that broke off is repeated by the same
command. Nothing on the hub is deleted.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.hf import mapping, tlm_file
from fusar_jax.hf.config_json import read_config
from fusar_jax.hf.coverage import match
from fusar_jax.hf.torch_file import read_torch
from fusar_jax.hf.weights import Weights, weight_files
from fusar_jax.io.strict_json import read_object

_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_COMPLETE = (
  "README.md",
  "chat_template.jinja",
  "preprocessor_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
)
_MODEL = ("config.json", "generation_config.json")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
# A path of a user in running text: /home/NAME, /Users/NAME, C:\Users\NAME.
_HOME = re.compile(r"(?:/home/|/Users/|/root/|[A-Za-z]:\\Users\\)[\w.-]+")
_TEXT = (".json", ".jinja", ".md", ".txt", ".py")
# Loaders read files like these by their name, whoever put them there.
_LOADED = (*_TEXT, ".bin", ".model", ".pt", ".safetensors")
_SCANNED_BYTES = 4_000_000  # tokenizer.json of Qwen is larger: words, no paths


class Repository(NamedTuple):
  """Where to upload.

  Attributes:
    name: OWNER/NAME.
    private: creates it private; an existing public one is an error.
    revision: branch, made if it does not exist; None: main.
  """

  name: str
  private: bool = False
  revision: str | None = None


def check_name(name: str) -> None:
  """Raises ValueError unless it is OWNER/NAME."""
  if not _NAME.fullmatch(name) or "--" in name or ".." in name:
    raise ValueError(
      f"--push-to-hub {name!r}: expected OWNER/NAME, for instance"
      " my-lab/fusar-gpt-counting."
    )


def files_to_push(folder: Path) -> list[tuple[str, int]]:
  """Returns (name, bytes) of the files of a folder, sorted.

  Raises:
    ValueError: a link, or a subfolder: exports have none.
  """
  found = []
  for path in sorted(Path(folder).iterdir()):
    if path.is_symlink() or not path.is_file():
      raise ValueError(
        f"{path}: a link or folder, which exports do not hold; remove it."
      )
    found.append((path.name, path.stat().st_size))
  return found


def check_folder(folder: Path) -> None:
  """Verifies a folder before it is uploaded.

  Raises:
    FileNotFoundError: files that a user of the model needs are missing.
    ValueError: weights that do not fit config.json or hold NaN, or a file that
      names a path of this machine or holds an access token.
  """
  folder = Path(folder)
  adapter = (folder / _ADAPTER[0]).is_file()
  wanted = (*_COMPLETE, *(_ADAPTER if adapter else _MODEL))
  missing = [name for name in wanted if not (folder / name).is_file()]
  if missing:
    raise FileNotFoundError(
      f"{folder}: incomplete, {', '.join(missing)} missing. Write it with"
      " `python -m fusar_jax.convert --from MODEL --to OUT`; --tokenizer names"
      " the tokenizer of a model without one."
    )
  leaks = [
    leak for name, _ in files_to_push(folder) for leak in _leaks(folder / name)
  ]
  if leaks:
    raise ValueError(
      f"{folder}: {len(leaks)} value(s) that name this machine or hold a token"
      " would be published:\n  " + "\n  ".join(leaks[:20]) + "\nFor"
      " base_model_name_or_path give --base-name OWNER/NAME; correct the others"
      " in the files, and upload again."
    )
  if adapter:
    weights = Weights([folder / _ADAPTER[1]])
    for item in weights.found():
      weights.read(item)
  else:
    config = read_config(folder)
    weights = Weights(weight_files(folder))
    found = match(
      mapping.tensors(config),
      weights.found(),
      what=str(folder),
      fix="The folder is damaged: write it anew.",
    )
    for item in found.values():
      weights.read(item)
  if tlm_file.has_tlm(folder):
    tlm_file.tlm_image_size(folder)
    read_torch(folder / tlm_file.WEIGHTS)
  load_tokenizer(folder)


def push(folder: Path, to: Repository, message: str) -> str:
  """Uploads a folder in one commit; returns the commit's URL.

  Raises:
    ImportError: huggingface_hub is not installed.
    PermissionError: no token, or one without the right to write there.
    ValueError: the repository is public, and `private` is asked for, or it
      holds files that would be loaded together with those of the folder.
    OSError: the hub rejects the upload or cannot be reached.
  """
  try:
    import huggingface_hub
  except ImportError as e:
    raise ImportError(
      "--push-to-hub needs huggingface_hub: pip install 'fusar-jax[hub]'."
    ) from e
  if huggingface_hub.get_token() is None:
    raise PermissionError(
      "no access token for the Hugging Face hub: set HF_TOKEN, or run `hf auth"
      " login`, with a token that may write (huggingface.co/settings/tokens)."
    )
  api = huggingface_hub.HfApi()
  try:
    api.create_repo(to.name, private=to.private or None, exist_ok=True)
    if to.private and not api.repo_info(to.name).private:
      raise ValueError(
        f"{to.name} exists and is public, but --private is given. Make it"
        " private in its settings, or take another name; nothing was uploaded."
      )
    if to.revision is not None:
      api.create_branch(to.name, branch=to.revision, exist_ok=True)
    _check_others(
      api.list_repo_files(to.name, revision=to.revision), to, folder
    )
    done = api.upload_folder(
      repo_id=to.name,
      folder_path=folder,
      revision=to.revision,
      commit_message=message,
    )
  except Exception as error:  # its errors share no base class
    if isinstance(error, ValueError) and not hasattr(error, "response"):
      raise
    raise _explained(error, to, folder) from error
  return done.commit_url


def _check_others(names: list[str], to: Repository, folder: Path) -> None:
  """Raises ValueError for files of another model in the repository.

  An adapter_config.json beside merged weights, for instance, is applied to them
  by transformers; a TLM or shards of before are read too.
  """
  ours = {name for name, _ in files_to_push(folder)}
  others = [
    name
    for name in names
    if name not in ours and "/" not in name and name.endswith(_LOADED)
  ]
  if others:
    raise ValueError(
      f"{to.name} holds files that {folder} does not, and loaders would read"
      f" both: {', '.join(sorted(others)[:20])}. Delete them on the hub, or"
      " take another repository; nothing was uploaded."
    )


def _explained(error: Exception, to: Repository, folder: Path) -> OSError:
  """Returns an error that says what to do."""
  code = getattr(getattr(error, "response", None), "status_code", None)
  options = " --private" if to.private else ""
  options += f" --revision {to.revision}" if to.revision else ""
  again = (
    f" Nothing is lost: `python -m fusar_jax.convert --to {folder}"
    f" --push-to-hub {to.name}{options}` sends what is missing."
  )
  if code == 401:
    return PermissionError(
      "the hub does not accept the access token (401): it is wrong or has"
      f" expired; log in again with `hf auth login`.{again}"
    )
  if code == 403:
    return PermissionError(
      f"the token may not write to {to.name} (403): it is a read token, or its"
      f" owner is no member of {to.name.split('/')[0]} with that right.{again}"
    )
  if code == 404:
    return FileNotFoundError(
      f"{to.name} not found (404): no user or organisation"
      f" {to.name.split('/')[0]}, or the token may not see it.{again}"
    )
  if code == 409:
    return FileExistsError(
      f"{to.name} conflicts with what is on the hub (409): another repository"
      " has that name, or somebody commits at the same time; try again, or"
      " take another name."
    )
  if code is not None:
    return OSError(f"the hub answered {code} for {to.name}: {error}.{again}")
  return ConnectionError(
    f"the upload to {to.name} broke off: {type(error).__name__}: {error}."
    f"{again}"
  )


def _leaks(path: Path) -> Iterator[str]:
  """Yields what of a text file must not be published."""
  if path.suffix not in _TEXT or path.stat().st_size > _SCANNED_BYTES:
    return
  text = path.read_text(encoding="utf-8", errors="replace")
  if _TOKEN.search(text):
    yield f"{path.name}: an access token, hf_..."
  if path.suffix == ".json" and path.name != "tokenizer.json":
    for where, value in _strings(read_object(path)):
      place = os.path.isabs(value) or value.startswith("gs://")
      if place or _HOME.search(value):
        yield f"{path.name}: {where}: {value:.100}"
  elif path.name != "tokenizer.json":
    for found in sorted(set(_HOME.findall(text))):
      yield f"{path.name}: {found}"


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
  """Yields (place, string) of every string of a JSON value."""
  if isinstance(value, dict):
    for name, one in value.items():
      yield from _strings(one, f"{where}.{name}" if where else str(name))
  elif isinstance(value, list):
    for index, one in enumerate(value):
      yield from _strings(one, f"{where}[{index}]")
  elif isinstance(value, str):
    yield where, value
