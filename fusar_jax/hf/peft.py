"""Reads and writes PEFT LoRA and official FUSAR-GPT adapter folders.

A folder contains `adapter_config.json`, `adapter_model.safetensors`, and for
FUSAR-GPT the TLM's two files (see `tlm_file`) or, for a model without TLM, the
image size file (see `image_text_file`). The tensors define which projections
have an adapter; `target_modules` must select the same ones.

R LoRA rank.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from fusar_jax.hf import image_text_file, mapping, tlm_file
from fusar_jax.hf.config_json import preprocessor_json, write_json
from fusar_jax.hf.coverage import Differences, match
from fusar_jax.hf.folders import resolve, write_record
from fusar_jax.hf.model_card import UNKNOWN, Publication, write_model_card
from fusar_jax.hf.tokenizer_files import write_tokenizer
from fusar_jax.hf.weights import Weights, save
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.model.config import (
  LANGUAGE_PROJECTIONS,
  VISION_PROJECTIONS,
  FusarConfig,
  LoRAConfig,
)
from fusar_jax.model.paths import flatten, unflatten

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# Fields about provenance or initialisation, without effect on the result.
_HARMLESS = {
  "auto_mapping",
  "base_model_name_or_path",
  "corda_config",
  "ensure_weight_tying",
  "eva_config",
  "inference_mode",
  "init_lora_weights",
  "layers_pattern",
  "loftq_config",
  "lora_alpha",
  "lora_dropout",
  "lora_ga_config",
  "megatron_config",
  "megatron_core",
  "peft_type",
  "peft_version",
  "qalora_group_size",
  "r",
  "revision",
  "runtime_config",
  "target_modules",
  "task_type",
}
# Run by `_selected`: prints which names match the pattern.
_MATCH = (
  "import json, re, resource, sys\n"
  "resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n"
  "pattern, names = json.load(sys.stdin)\n"
  "print(json.dumps([k for k, n in names.items() if re.fullmatch(pattern, n)]))"
)
# On a machine that is busy with other work; the process itself has 1 s.
_MATCH_SECONDS = 20
# These initialisations also change the base weights.
_INIT_OF_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read_adapter(
  folder: str | os.PathLike,
  base_config: FusarConfig,
  legacy_sigma: float | None = None,
  *,
  use_tlm: bool = True,
) -> tuple[FusarConfig, dict]:
  """Reads a PEFT adapter and its TLM, if any.

  A folder with `image_text_config.json` and without TLM files removes the TLM
  of the base. A plain PEFT folder has neither, and keeps the TLM and the image
  size of the base.

  Args:
    folder: PEFT or official FUSAR-GPT folder, or a hub id.
    base_config: config of the base model.
    legacy_sigma: for official folders without `tlm_config.json`: 2.
    use_tlm: False reads only the LoRA, as the official script without anchors
      does. The image size is then that of `image_text_config.json`, else that
      of the TLM, else that of the base.

  Returns:
    `base_config` with the adapter's LoRA, TLM (or None) and image size, and the
    adapter's leaves as numpy arrays (see `attach`).

  Raises:
    FileNotFoundError: no such folder, or a file of it is missing.
    ValueError: an unsupported setting, or tensors that do not fit the model;
      all differences are listed.
  """
  folder = resolve(folder)
  for name in (SETTINGS, WEIGHTS):
    if not (folder / name).is_file():
      raise FileNotFoundError(f"{folder / name} not found: not a PEFT adapter.")
  settings = read_object(folder / SETTINGS)
  _check_supported(folder / SETTINGS, settings)
  weights = Weights([folder / WEIGHTS])
  found = list(weights.found())
  lora = lora_config(folder / SETTINGS, settings, found)
  config = dataclasses.replace(base_config, lora=lora)
  table = list(mapping.adapter_tensors(config))
  by_name = match(
    table,
    found,
    what=f"adapter {folder}",
    fix=f"{SETTINGS} gives rank {lora.rank}; check that base and adapter have"
    " the same size.",
  )
  _check_targets(folder / SETTINGS, settings, base_config, table)
  leaves = {
    path: np.empty(shape, np.float32)
    for path, shape in mapping.leaf_shapes(config, adapter=True).items()
  }
  for tensor in table:
    item = by_name[tensor.name]
    weights.dtype(item)  # raises ValueError for non-float dtypes
    array = weights.read(item).astype(np.float32)
    leaves[tensor.path][tensor.layer] = mapping.from_published(
      array, tensor.transform
    )
  params = unflatten(leaves)
  has_tlm = tlm_file.has_tlm(folder)
  if legacy_sigma is not None and not (has_tlm and use_tlm):
    reason = (
      "the TLM is not used" if has_tlm else f"there is no {tlm_file.WEIGHTS}"
    )
    raise ValueError(f"{folder}: legacy_sigma is given, but {reason}.")
  if has_tlm and use_tlm:
    config, params["tlm"] = tlm_file.read_tlm(folder, config, legacy_sigma)
    return config, params
  size = image_text_file.read_image_text(folder)
  if size is None and has_tlm:
    size = tlm_file.tlm_image_size(folder)
  elif size is not None:
    use_tlm = False
  if size is not None:
    with reading(folder):
      config = dataclasses.replace(config, image_size=size)
  return config if use_tlm else dataclasses.replace(config, tlm=None), params


def read_lora(folder: str | Path) -> LoRAConfig | None:
  """Returns the LoRA config of a PEFT folder without reading its weights.

  Returns:
    Rank, alpha, dropout and projections; None if the folder is not an adapter.

  Raises:
    ValueError: malformed settings or weights.
  """
  folder = Path(folder)
  if not all((folder / name).is_file() for name in (SETTINGS, WEIGHTS)):
    return None
  weights = Weights([folder / WEIGHTS])
  found = list(weights.found())
  return lora_config(folder / SETTINGS, read_object(folder / SETTINGS), found)


def attach(config: FusarConfig, params: dict, adapter: dict) -> dict:
  """Returns the base parameters merged with the adapter's leaves.

  Args:
    config: config of the adapted model, see `read_adapter`; if it has no TLM,
      the TLM of the base is dropped.
    params: parameters of the base.
    adapter: leaves of the adapter; its TLM replaces that of the base.
  """
  both = unflatten(flatten(params) | flatten(adapter))
  if config.tlm is None:
    both.pop("tlm", None)
  return both


def lora_config(path: Path, settings: dict, found) -> LoRAConfig:
  """Returns the LoRA config from an adapter's settings and tensors.

  Raises:
    ValueError: rank or alpha missing; the message names the file `path`.
  """
  rank, alpha = settings.get("r"), settings.get("lora_alpha")
  if not isinstance(rank, int) or rank < 1:
    raise ValueError(f"{path}: r must be a positive integer, got {rank!r}.")
  if not isinstance(alpha, int | float):
    raise ValueError(f"{path}: lora_alpha must be a number, got {alpha!r}.")
  seen = set()
  for item in found:
    parts = mapping.canonical(item.name).split(".")
    if len(parts) > 3 and parts[-2] in ("lora_A", "lora_B"):
      seen.add((parts[1], parts[-3]))
  with reading(path):
    return LoRAConfig(
      rank=rank,
      alpha=float(alpha),
      dropout=settings.get("lora_dropout") or 0.0,
      language=_named(LANGUAGE_PROJECTIONS, "language_model", seen),
      vision=_named(VISION_PROJECTIONS, "visual", seen),
    )


def _named(known, part, seen) -> tuple[str, ...]:
  return tuple(name for name in known if (part, name) in seen)


def _check_supported(path: Path, settings: dict) -> None:
  wrong = []
  if settings.get("peft_type") != "LORA":
    wrong.append(f"peft_type {settings.get('peft_type')!r} (expected 'LORA')")
  if settings.get("bias", "none") != "none":
    wrong.append(f"bias {settings['bias']!r} (expected 'none')")
  init = settings.get("init_lora_weights")
  if isinstance(init, str) and init.startswith(_INIT_OF_BASE):
    wrong.append(f"init_lora_weights {init!r} (it changes the base)")
  for name, value in settings.items():
    if value and name != "bias" and name not in _HARMLESS:
      wrong.append(f"{name} {value!r}")
  if wrong:
    raise ValueError(
      f"{path}: not supported: {'; '.join(wrong)}. Plain LoRA with one rank"
      " can be read; merge this adapter with peft and load the result."
    )


def _check_targets(path, settings, base_config, table) -> None:
  """Raises ValueError unless `target_modules` selects the adapted modules."""
  targets = settings.get("target_modules")
  if not targets:
    raise ValueError(f"{path}: target_modules is empty.")
  listed = targets if isinstance(targets, list) else [targets]
  if not all(isinstance(target, str) for target in listed):
    raise ValueError(
      f"{path}: target_modules is {targets!r:.60}; expected a pattern or a list"
      " of names."
    )
  covered = {re.sub(r"\.lora_[AB]\.weight$", "", t.name) for t in table}
  names = set()
  for tensor in mapping.tensors(base_config):
    names.add(tensor.name.rpartition(".")[0])
  # Older transformers versions use the module names of the hub's files.
  selections = [
    _selected(path, targets, {n: spell(n) for n in names})
    for spell in (str, mapping.hub_name)
  ]
  if covered in selections:
    return
  selected = min(selections, key=lambda s: len(s ^ covered))
  differences = Differences.between(
    dict.fromkeys(sorted(selected), ""), dict.fromkeys(sorted(covered), "")
  )
  raise ValueError(
    f"{path}: target_modules and the tensors disagree:\n{differences}\n"
    "The tensors belong to another adapter, or the file is incomplete."
  )


def _selected(path: Path, targets, names: dict[str, str]) -> set[str]:
  """Returns the keys whose names `targets` selects by peft's rule.

  The rule: a full-match regex, or a list of names or suffixes. A regex can take
  time that is exponential in its length, so a process that can be stopped
  matches it.
  """
  if not isinstance(targets, str):
    return {
      key
      for key, name in names.items()
      if any(name == t or name.endswith(f".{t}") for t in targets)
    }
  try:
    re.compile(targets)
  except (re.error, RecursionError, OverflowError) as e:
    raise ValueError(f"{path}: target_modules: bad pattern ({e}).") from e
  try:
    done = subprocess.run(
      [sys.executable, "-I", "-c", _MATCH],
      input=json.dumps([targets, names]),
      capture_output=True,
      text=True,
      check=True,
      timeout=_MATCH_SECONDS,
    )
  except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
    raise ValueError(
      f"{path}: target_modules: the pattern {targets[:60]!r} fails or takes"
      " more than 1 s. Write the modules' names as a list."
    ) from None
  return set(json.loads(done.stdout))


def target_modules(config: FusarConfig) -> list[str]:
  """Returns suffixes that select exactly the adapted modules in peft.

  The vision MLP and the decoder MLP share their names. If only one of them is
  adapted, its layers are listed individually, as in the official folders.
  """
  language, vision = config.lora.language, config.lora.vision
  endings = {"qkv": "qkv", "proj": "attn.proj"}
  targets = []
  for name in sorted({*language, *vision}):
    if not name.endswith("_proj") or name in ("q_proj", "k_proj"):
      targets.append(endings.get(name, name))
    elif name in ("v_proj", "o_proj") or (name in language and name in vision):
      targets.append(name)
    elif name in language:
      layers = range(config.decoder.layers)
      targets += [f"layers.{i}.mlp.{name}" for i in layers]
    else:
      blocks = range(config.vision.depth)
      targets += [f"blocks.{i}.mlp.{name}" for i in blocks]
  return targets


def write_adapter(
  folder: str | Path,
  config: FusarConfig,
  params: dict,
  base: str = "Qwen/Qwen2.5-VL-7B-Instruct",
  *,
  tokenizer: str | Path | None = None,
  overwrite: bool = False,
  about: Publication = UNKNOWN,
) -> Path:
  """Writes LoRA and TLM as a folder that peft and the official code load.

  Without TLM, `image_text_config.json` replaces the TLM's files.

  Args:
    folder: new folder.
    config: config with `lora` (rank at least 1), and `tlm` or None.
    params: the full tree, or only its LoRA and TLM leaves.
    base: name or path of the base model, as peft records it.
    tokenizer: folder of the tokenizer to export, as `tokenizer.json`, with the
      processor's other files.
    overwrite: replaces the contents of the folder.
    about: what the model card says of the adapter's origin.

  Raises:
    ValueError: no LoRA, or missing leaves.
    FileExistsError: the folder is not empty.
  """
  if not config.lora.rank:
    raise ValueError("the model has no LoRA (rank 0): nothing to write.")
  flat = flatten(params)
  arrays, leaves = {}, {}
  for tensor in mapping.adapter_tensors(config):
    if tensor.path not in leaves:
      if tensor.path not in flat:
        raise ValueError(f"parameters lack {tensor.path}; config.lora has it.")
      leaves[tensor.path] = np.asarray(flat[tensor.path], np.float32)
    array = mapping.to_published(leaves[tensor.path][tensor.layer], tensor)
    arrays[mapping.peft_name(tensor.name)] = array
  with new_folder(folder, overwrite=overwrite) as made:
    save(made / WEIGHTS, arrays)
    write_json(made / SETTINGS, _settings(config, str(base)))
    if config.tlm is not None:
      tlm_file.write_tlm(made, config, params["tlm"])
    else:
      image_text_file.write_image_text(made, config)
    if tokenizer is not None:
      # The official folders include the complete processor.
      write_json(made / "preprocessor_config.json", preprocessor_json(config))
    write_tokenizer(made, tokenizer)
    write_model_card(made, config, dataclasses.replace(about, adapter=True))
    write_record(made, about.record)
  return Path(folder)


def _settings(config: FusarConfig, base: str) -> dict:
  lora = config.lora
  alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": lora.rank,
    "lora_alpha": alpha,
    "lora_dropout": lora.dropout,
    "bias": "none",
    "target_modules": target_modules(config),
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
  }
