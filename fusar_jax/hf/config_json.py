"""Converts between Hugging Face config files and FusarConfig.

`config.json` has two layouts: the decoder's fields at the top level (files on
the hub, transformers 4) or inside `text_config` (transformers 5). The reader
also uses `preprocessor_config.json` (pixel bounds, normalisation) and
`generation_config.json` (padding token). For the TLM's files see `tlm_file`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.hf.remote_code import MODEL_MAP, PROCESSOR_MAP
from fusar_jax.io.strict_json import read_object
from fusar_jax.model.config import (
  DecoderConfig,
  FusarConfig,
  SpecialTokens,
  VisionConfig,
)

MODEL_TYPE = "qwen2_5_vl"
PROCESSOR = "Qwen2_5_VLProcessor"
# Constants in transformers' code, which config.json cannot override.
_VISION_EPS = 1e-6
_QWEN_VIDEO = 151656
# Margin around the area of a fixed image size, in pixels: prevents rounding in
# the square roots of transformers' processor from changing a side by 28.
_AREA_SLACK = 28


def write_json(path: Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _read_if_there(path: Path) -> dict:
  return read_object(path) if path.is_file() else {}


def read_config(folder: Path) -> FusarConfig:
  """Returns the config of a Hugging Face folder, without TLM and LoRA.

  Raises:
    FileNotFoundError: no config.json.
    ValueError: another model type, a missing field, an unsupported setting;
      the message names the file.
  """
  path = Path(folder) / "config.json"
  if not path.is_file():
    hint = ""
    if path.with_name("adapter_config.json").is_file():
      hint = " This is an adapter: give its base model, and it as the adapter."
    raise FileNotFoundError(
      f"{path} not found: expected a Hugging Face folder of Qwen2.5-VL"
      f" (config.json and *.safetensors).{hint}"
    )
  raw = read_object(path)
  if raw.get("model_type") != MODEL_TYPE:
    raise ValueError(
      f"{path}: model_type {raw.get('model_type')!r}, expected"
      f" {MODEL_TYPE!r}. Only Qwen2.5-VL checkpoints can be read."
    )
  generation = _read_if_there(Path(folder) / "generation_config.json")
  processor = _read_if_there(Path(folder) / "preprocessor_config.json")
  try:
    text = _object(raw, "text_config") or raw
    _check_supported(raw, text, processor)
    low, high = _pixel_bounds(processor)
    squash = processor.get("fusar_image_size")
    vision = raw["vision_config"] and _object(raw, "vision_config")
    if not vision:
      raise ValueError("vision_config is empty.")
    return FusarConfig(
      vision=_vision(vision, processor),
      decoder=_decoder(raw, text),
      tlm=None,
      tokens=_tokens(raw, text, generation),
      image_size=tuple(squash) if squash else None,
      min_pixels=low,
      max_pixels=high,
    )
  except KeyError as e:
    raise ValueError(f"{path}: missing field {e.args[0]!r}.") from e
  except ZeroDivisionError as e:
    raise ValueError(
      f"{path}: heads, patch size and merge size must be above 0."
    ) from e
  except (TypeError, ValueError, LookupError, ArithmeticError) as e:
    raise ValueError(f"{path}: {e}") from e


def _object(raw: dict, *names: str) -> dict:
  """Returns the first non-empty object of these names; {} if all are empty."""
  value = next((raw[name] for name in names if raw.get(name)), {})
  if not isinstance(value, dict):
    raise ValueError(f"{names[0]} is {value!r:.60}; expected an object.")
  return value


def _vision(raw: dict, processor: dict) -> VisionConfig:
  rope = _object(raw, "rope_parameters")
  like = VisionConfig()
  return VisionConfig(
    depth=raw["depth"],
    hidden_size=raw["hidden_size"],
    heads=raw["num_heads"],
    intermediate_size=raw["intermediate_size"],
    out_width=raw["out_hidden_size"],
    full_attention=tuple(raw["fullatt_block_indexes"]),
    window=raw["window_size"],
    # Files on the hub omit or rename fields that never vary.
    patch=raw.get("patch_size", raw.get("spatial_patch_size", like.patch)),
    merge=raw.get("spatial_merge_size", like.merge),
    temporal=raw.get("temporal_patch_size", like.temporal),
    rope_theta=float(rope.get("rope_theta", like.rope_theta)),
    mean=tuple(processor.get("image_mean", like.mean)),
    std=tuple(processor.get("image_std", like.std)),
  )


def _decoder(raw: dict, text: dict) -> DecoderConfig:
  rope = _object(text, "rope_parameters", "rope_scaling")
  theta = rope.get("rope_theta", text.get("rope_theta", 1_000_000.0))
  width, heads = text["hidden_size"], text["num_attention_heads"]
  return DecoderConfig(
    layers=text["num_hidden_layers"],
    hidden_size=width,
    heads=heads,
    kv_heads=text.get("num_key_value_heads") or heads,
    head_dim=text.get("head_dim") or width // heads,
    intermediate_size=text["intermediate_size"],
    vocab=text["vocab_size"],
    # transformers accepts either location.
    tie_word_embeddings=bool(
      raw.get("tie_word_embeddings") or text.get("tie_word_embeddings")
    ),
    rope_theta=float(theta),
    mrope_section=tuple(rope["mrope_section"]),
    norm_eps=text["rms_norm_eps"],
  )


def _tokens(raw: dict, text: dict, generation: dict) -> SpecialTokens:
  like = SpecialTokens()
  sources = (text, raw, generation)
  end = _first(sources, "eos_token_id", like.end_of_turn)
  # The first of several end tokens is <|im_end|>, which ends trained answers.
  end = end[0] if isinstance(end, list) else end
  return SpecialTokens(
    image=raw.get("image_token_id", like.image),
    vision_start=raw.get("vision_start_token_id", like.vision_start),
    vision_end=raw.get("vision_end_token_id", like.vision_end),
    end_of_turn=end,
    # Only generation_config.json has the padding token, Qwen's "bos".
    pad=_first(sources, "pad_token_id", _first(sources, "bos_token_id", end)),
  )


def _first(sources, key, default):
  for source in sources:
    if source.get(key) is not None:
      return source[key]
  return default


def _pixel_bounds(processor: dict) -> tuple[int, int]:
  # Old files have min_pixels and max_pixels, and stale values in `size`.
  if own := processor.get("fusar_pixel_bounds"):
    return tuple(own)
  size = _object(processor, "size")
  like = FusarConfig()
  low = processor.get("min_pixels") or size.get("shortest_edge")
  high = processor.get("max_pixels") or size.get("longest_edge")
  return low or like.min_pixels, high or like.max_pixels


def _check_supported(raw: dict, text: dict, processor: dict) -> None:
  rope = _object(text, "rope_parameters", "rope_scaling")
  kind = rope.get("rope_type", rope.get("type", "default"))
  vision = _object(raw, "vision_config")
  for name, value, known in (
    ("hidden_act", text.get("hidden_act", "silu"), ("silu",)),
    ("vision hidden_act", vision.get("hidden_act", "silu"), ("silu",)),
    ("rope type", kind, ("default", "mrope")),
    ("use_sliding_window", bool(text.get("use_sliding_window")), (False,)),
    ("in_channels", vision.get("in_channels", 3), (3,)),
    ("resample", processor.get("resample", 3), (3,)),
    ("rescale_factor", processor.get("rescale_factor", 1 / 255), (1 / 255,)),
  ):
    if value not in known:
      raise ValueError(
        f"{name} {value!r} is not supported; expected {known[0]!r}."
      )


def config_json(config: FusarConfig, dtype: str) -> dict:
  """Returns `config.json` in transformers 5's layout.

  Args:
    config: config of the model; TLM and LoRA have separate files.
    dtype: of the weights, e.g. "bfloat16".

  Raises:
    ValueError: a setting that transformers' Qwen2.5-VL cannot express.
  """
  v, d, t = config.vision, config.decoder, config.tokens
  if d.heads * d.head_dim != d.hidden_size:
    raise ValueError(
      f"decoder: heads {d.heads} x head_dim {d.head_dim} must equal width"
      f" {d.hidden_size}: transformers' Qwen2.5-VL knows no other head width."
    )
  if v.norm_eps != _VISION_EPS:
    raise ValueError(
      f"vision: norm_eps {v.norm_eps} must be {_VISION_EPS}: transformers'"
      " Qwen2.5-VL fixes it."
    )
  return {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": MODEL_TYPE,
    **({"auto_map": MODEL_MAP} if config.tlm else {}),
    "dtype": dtype,
    "image_token_id": t.image,
    # We have no videos. Where the vocabulary is not Qwen's own, the id lies
    # outside of it, so that no ordinary word is taken for a video.
    "video_token_id": _QWEN_VIDEO if d.vocab > _QWEN_VIDEO else d.vocab,
    "vision_start_token_id": t.vision_start,
    "vision_end_token_id": t.vision_end,
    "tie_word_embeddings": d.tie_word_embeddings,
    "text_config": {
      "model_type": "qwen2_5_vl_text",
      "hidden_act": "silu",
      "hidden_size": d.hidden_size,
      "intermediate_size": d.intermediate_size,
      "num_hidden_layers": d.layers,
      "num_attention_heads": d.heads,
      "num_key_value_heads": d.kv_heads,
      "vocab_size": d.vocab,
      "rms_norm_eps": d.norm_eps,
      "rope_parameters": {
        "rope_type": "default",
        "rope_theta": d.rope_theta,
        "mrope_section": list(d.mrope_section),
      },
      # The same for transformers 4.57, which the official code pins.
      "rope_theta": d.rope_theta,
      "rope_scaling": {
        "rope_type": "default",
        "mrope_section": list(d.mrope_section),
      },
      "tie_word_embeddings": d.tie_word_embeddings,
      "use_sliding_window": False,
      "bos_token_id": t.pad,
      "eos_token_id": t.end_of_turn,
      "pad_token_id": t.pad,
    },
    "vision_config": {
      "model_type": "qwen2_5_vl_vision",
      "hidden_act": "silu",
      "depth": v.depth,
      "hidden_size": v.hidden_size,
      "num_heads": v.heads,
      "intermediate_size": v.intermediate_size,
      "out_hidden_size": v.out_width,
      "fullatt_block_indexes": list(v.full_attention),
      "window_size": v.window,
      "in_channels": 3,
      "patch_size": v.patch,
      "spatial_merge_size": v.merge,
      "temporal_patch_size": v.temporal,
      "rope_parameters": {"rope_type": "axial", "rope_theta": v.rope_theta},
    },
  }


def preprocessor_json(config: FusarConfig) -> dict:
  """Returns `preprocessor_config.json`.

  transformers' processor keeps the aspect of an image within bounds on its
  area; it cannot squash. With a fixed image size both bounds are that area, so
  an image of that aspect gets that size. Any other has to be resized first
  (see `handoff.resize_images`).

  Two fields are ours, and other readers skip them: `fusar_image_size`, the
  size to squash to, and `fusar_pixel_bounds`, the bounds without it.
  """
  v = config.vision
  low, high = config.min_pixels, config.max_pixels
  own = {}
  if config.image_size:
    own = {
      "fusar_image_size": list(config.image_size),
      "fusar_pixel_bounds": [low, high],
    }
    area = config.image_size[0] * config.image_size[1]
    low, high = area - _AREA_SLACK, area + _AREA_SLACK
  return {
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": PROCESSOR,
    **({"auto_map": PROCESSOR_MAP} if config.tlm else {}),
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,  # bicubic
    "rescale_factor": 1 / 255,
    "image_mean": list(v.mean),
    "image_std": list(v.std),
    "size": {"shortest_edge": low, "longest_edge": high},
    # transformers 4.57 reads these alone, for any `size`.
    "min_pixels": low,
    "max_pixels": high,
    "patch_size": v.patch,
    "merge_size": v.merge,
    "temporal_patch_size": v.temporal,
    **own,
  }


def generation_json(config: FusarConfig) -> dict:
  """Returns `generation_config.json` for a base without one: greedy, with the
  ends at which we stop.
  """
  t = config.tokens
  return {
    "do_sample": False,
    "bos_token_id": t.pad,
    "eos_token_id": list(dict.fromkeys((t.end_of_turn, t.pad))),
    "pad_token_id": t.pad,
  }


def write_config(
  folder: Path,
  config: FusarConfig,
  dtype: str,
  generation: Mapping[str, Any] | None = None,
) -> None:
  """Writes the three files into a folder that exists.

  Args:
    folder: to write to.
    config: of the model.
    dtype: of the weights, e.g. "bfloat16".
    generation: content of the base's generation_config.json; None: it has none.
  """
  folder = Path(folder)
  write_json(folder / "config.json", config_json(config, dtype))
  write_json(folder / "preprocessor_config.json", preprocessor_json(config))
  if generation is None:
    generation = generation_json(config)
  write_json(folder / "generation_config.json", dict(generation))
