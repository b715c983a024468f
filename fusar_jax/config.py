"""Model presets by name, and what config files are read with.

`qwen2_5_vl_*` are the published sizes (their `config.json` on the hub).
`tiny` is a stand-in small enough for a laptop; `bench` is the size that speed
is compared with PyTorch at. A run's `config.json` holds one as plain values.
"""

import dataclasses
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from fusar_jax.model.config import (
  DecoderConfig,
  FusarConfig,
  LoRAConfig,
  SpecialTokens,
  TLMConfig,
  VisionConfig,
)


def _qwen2_5_vl(
  width, intermediate_size, layers, heads, kv_heads, vision_ff, **decoder
):
  return FusarConfig(
    vision=VisionConfig(intermediate_size=vision_ff, out_width=width),
    decoder=DecoderConfig(
      layers=layers,
      hidden_size=width,
      heads=heads,
      kv_heads=kv_heads,
      intermediate_size=intermediate_size,
      **decoder,
    ),
  )


PRESETS = {
  "qwen2_5_vl_3b": _qwen2_5_vl(
    2048, 11008, 36, 16, 2, 3420, tie_word_embeddings=True, vocab=151936
  ),
  "qwen2_5_vl_7b": _qwen2_5_vl(3584, 18944, 28, 28, 4, 3420),
  "qwen2_5_vl_32b": _qwen2_5_vl(5120, 27648, 64, 40, 8, 3456),
  "qwen2_5_vl_72b": _qwen2_5_vl(8192, 29568, 80, 64, 8, 3456),
  "bench": FusarConfig(
    vision=VisionConfig(
      depth=8,
      hidden_size=320,
      heads=4,
      intermediate_size=864,
      out_width=512,
      full_attention=(3, 7),
    ),
    decoder=DecoderConfig(
      layers=8,
      hidden_size=512,
      heads=8,
      kv_heads=2,
      head_dim=64,
      intermediate_size=1408,
      mrope_section=(8, 12, 12),
    ),
  ),
  # Ids of `tokens` are those of the SentencePiece model that stage 0 trains.
  "tiny": FusarConfig(
    # No windows: one holds most of an image of 168 pixels, and they cost more
    # than attention over all of its patches.
    vision=VisionConfig(
      depth=4,
      hidden_size=160,
      heads=4,
      intermediate_size=320,
      out_width=256,
      full_attention=(0, 1, 2, 3),
    ),
    decoder=DecoderConfig(
      layers=4,
      hidden_size=256,
      heads=4,
      kv_heads=2,
      head_dim=64,
      intermediate_size=352,
      vocab=1024,
      tie_word_embeddings=True,
      # Text turns by all frequencies, whichever section they are in. Time,
      # which is the same for a whole image, needs one; rows get 0.78 to 0.47
      # radians, columns 0.37 and less, since with Qwen's sections and base of
      # 1e6 the six columns there are would look alike. A lower base would leave
      # few frequencies that are low enough to match content over the distance
      # between a text and its image.
      mrope_section=(1, 3, 28),
      rope_theta=3000.0,
    ),
    tlm=TLMConfig(),
    tokens=SpecialTokens(
      image=6, vision_start=4, vision_end=5, end_of_turn=3, pad=0
    ),
    image_size=(168, 168),
  ),
}
# Presets that `:recipe=tiny` suits.
SMALL_PRESETS = ("tiny", "bench")
# Config files of the repository; they are not installed with the package.
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# What a switch after `--config FILE.py:` means; each stage has some of them.
SWITCHES = {
  "model": "a preset, whose shapes the run has; init: shapes and special tokens"
  " of config.init",
  "recipe": "official, or tiny: what suits a model small enough for a laptop;"
  " empty: tiny for the presets tiny and bench, else official",
  "data": "the same as --config.data.train",
  "train": "tlm+lora, or tlm alone, as the paper's equations have it",
  "phase": "see, one, two or all: the phases of stage 0, each from the one"
  " before",
}


def preset(name: str) -> FusarConfig:
  """Returns the preset of that name, without LoRA.

  Raises:
    ValueError: an unknown name; the message lists the known ones.
  """
  if name not in PRESETS:
    raise ValueError(
      f"unknown model {name!r}; presets are {', '.join(sorted(PRESETS))}."
    )
  return PRESETS[name]


def parse_arg(arg: str | None, **defaults):
  """Reads `key=value,...` after `--config file.py:` over typed defaults.

  Returns a namespace with one attribute per default, of the default's type.

  Raises:
    ValueError: a key that the config does not know, or a value of a wrong type.

  Example:
    >>> parse_arg("model=tiny", model="qwen2_5_vl_7b", image_size=504).model
    'tiny'
  """
  values = dict(defaults)
  for item in filter(None, (arg or "").split(",")):
    key, sep, text = item.partition("=")
    if not sep or key not in defaults:
      raise ValueError(
        f"config argument {item!r}: expected key=value with a key of"
        f" {sorted(defaults)}."
      )
    kind = type(defaults[key])
    try:
      values[key] = (
        text in ("1", "true", "True") if kind is bool else kind(text)
      )
    except ValueError:
      raise ValueError(
        f"config argument {item!r}: {key} must be {kind.__name__}."
      ) from None
  return dataclasses.make_dataclass("Arg", list(values))(**values)


def stage_files() -> dict[str, Path]:
  """Returns name -> file of the stages in `configs/`; none: not a checkout."""
  files = sorted(CONFIGS.glob("*.py"))
  return {path.stem: path for path in files if path.stem != "base"}


def load_module(path: str | Path) -> ModuleType:
  """Loads a config file from its path; configs belong to no package.

  Raises:
    ValueError: not the name of a Python file.
  """
  spec = importlib.util.spec_from_file_location(Path(path).stem, path)
  if spec is None or spec.loader is None:
    raise ValueError(f"{path}: a config is a Python file, NAME.py.")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def sibling(file: str, name: str) -> ModuleType:
  """Loads `name.py` from the folder of a config file.

  An import would search the working directory, which can be any.

  Args:
    file: the config's `__file__`.

  Raises:
    FileNotFoundError: the config was copied without `name.py`.
  """
  path = Path(file).with_name(f"{name}.py")
  if not path.is_file():
    raise FileNotFoundError(
      f"{file}: {path} not found; copy configs/{name}.py there too."
    )
  return load_module(path)


def model_values(name: str):
  """Returns `config.model` of a config file: every field, to be overridden.

  Args:
    name: of a preset; "init" leaves the shapes to `config.init`.
  """
  values = to_dict(FusarConfig() if name == "init" else preset(name))
  if name == "init":
    values |= {"vision": None, "decoder": None, "tokens": None}
  return ConfigDict(values)


def to_dict(config: FusarConfig) -> dict:
  """Returns plain nested values, as a run's `config.json` keeps them."""
  return dataclasses.asdict(config)


def from_dict(values: Mapping) -> FusarConfig:
  """Inverse of `to_dict`; lists, as JSON has them, become tuples.

  Raises:
    ValueError: an unknown field, or values that do not fit together.
  """
  try:
    return _build(FusarConfig, values, "model")
  except TypeError as error:
    raise ValueError(f"model: {error}") from None


_PARTS = {
  "vision": VisionConfig,
  "decoder": DecoderConfig,
  "tlm": TLMConfig,
  "lora": LoRAConfig,
  "tokens": SpecialTokens,
}


# Old name of a field of `vision` and `decoder` -> name; for one release.
RENAMED = {
  "width": "hidden_size",
  "ff_width": "intermediate_size",
  "head_width": "head_dim",
  "tied": "tie_word_embeddings",
}


def _build(kind, values, where):
  if not isinstance(values, Mapping):
    raise ValueError(f"{where}: expected an object, got {values!r:.60}.")
  known = {field.name for field in dataclasses.fields(kind)}
  for old, new in RENAMED.items():
    # An old config file may set the old name beside the default of the new.
    if new in known and old in values:
      warnings.warn(
        f"{where}.{old} is deprecated; use {where}.{new}.",
        FutureWarning,
        stacklevel=2,
      )
      values = {**values, new: values[old]}
      del values[old]
  unknown = sorted(set(values) - known)
  if unknown:
    raise ValueError(
      f"{where}: unknown fields {unknown}; known: {sorted(known)}."
    )
  built = {}
  for name, value in values.items():
    if name in _PARTS and isinstance(value, Mapping):
      value = _build(_PARTS[name], value, f"{where}.{name}")
    built[name] = tuple(value) if isinstance(value, list) else value
  return kind(**built)
