"""The TLM's files: `vec64_film.pt` and `tlm_config.json`.

The official code stores the projector next to the LoRA adapter: a torch file
{"film_mlp": {"0.weight", "0.bias", "2.weight", "2.bias"}} (older ones carry an
unused "score" too) and the settings in JSON (absent in legacy folders).

C visual token width, E embedding bands.
"""

import dataclasses
from pathlib import Path

import numpy as np

from fusar_jax.hf.config_json import write_json
from fusar_jax.hf.coverage import Found, match
from fusar_jax.hf.mapping import (
  SAME,
  TRANSPOSE,
  Tensor,
  from_published,
  to_published,
)
from fusar_jax.hf.remote_code import write_remote_code
from fusar_jax.hf.torch_file import read_torch, write_torch
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.model.config import FusarConfig, TLMConfig
from fusar_jax.model.paths import unflatten

WEIGHTS = "vec64_film.pt"
SETTINGS = "tlm_config.json"
FORMAT = "tlm_original_train_patch_resize_v1"
_LEGACY_SIZE = (504, 504)


def tensors(tlm: TLMConfig, out_width: int) -> tuple[Tensor, ...]:
  """Returns the table's four rows for a TLM on tokens of width C.

  Raises:
    ValueError: another fusion, which the format cannot express.
  """
  if tlm.fusion != "tlm":
    raise ValueError(
      f"model.tlm.fusion is {tlm.fusion!r}, but {WEIGHTS} and {SETTINGS} hold a"
      " TLM only: such a model cannot be exported. Use it from its run folder."
    )
  hidden = tlm.hidden(out_width)

  def row(name, leaf, transform, *shape):
    return Tensor(name, f"tlm/{leaf}", None, transform, shape)

  return (
    row("0.weight", "mlp_0/kernel", TRANSPOSE, hidden, tlm.bands),
    row("0.bias", "mlp_0/bias", SAME, hidden),
    row("2.weight", "mlp_2/kernel", TRANSPOSE, 2 * out_width, hidden),
    row("2.bias", "mlp_2/bias", SAME, 2 * out_width),
  )


def has_tlm(folder: Path) -> bool:
  return (Path(folder) / WEIGHTS).is_file() or (
    Path(folder) / SETTINGS
  ).is_file()


def is_legacy(folder: Path) -> bool:
  """True for a folder whose TLM does not record its sigma."""
  return has_tlm(folder) and not (Path(folder) / SETTINGS).is_file()


def tlm_image_size(folder: Path) -> tuple[int, int] | None:
  """Returns the image size of a folder's TLM, without reading its weights.

  Args:
    folder: one where `has_tlm` is True.

  Raises:
    ValueError: a malformed `tlm_config.json`.
  """
  settings = Path(folder) / SETTINGS
  return _read_settings(settings)[1] if settings.is_file() else _LEGACY_SIZE


def read_tlm(
  folder: Path, config: FusarConfig, legacy_sigma: float | None = None
) -> tuple[FusarConfig, dict]:
  """Returns the config with its TLM and image size, and the "tlm" subtree.

  Args:
    folder: holds `vec64_film.pt`, and `tlm_config.json` unless legacy.
    config: of the base model; C is its visual token width.
    legacy_sigma: for a folder without `tlm_config.json`, and only for such.

  Raises:
    ValueError: a legacy folder without `legacy_sigma`, or one of the files
      missing, malformed, or of another width.
  """
  weights, settings = Path(folder) / WEIGHTS, Path(folder) / SETTINGS
  if not weights.is_file():
    raise ValueError(f"{settings} is there, but {WEIGHTS} is missing.")
  content = read_torch(weights)
  state = content.get("film_mlp") if isinstance(content, dict) else None
  if not isinstance(state, dict):
    raise ValueError(
      f"{weights}: expected a dict with 'film_mlp', the projector's state dict."
    )
  arrays = {str(k): v for k, v in state.items() if isinstance(v, np.ndarray)}
  found = [Found(k, v.shape, weights) for k, v in arrays.items()]
  width = config.vision.out_width
  if settings.is_file():
    tlm, size = _read_settings(settings)
    if legacy_sigma is not None and legacy_sigma != tlm.sigma:
      raise ValueError(
        f"legacy_sigma {legacy_sigma} contradicts {settings} (sigma"
        f" {tlm.sigma}); leave it out."
      )
  else:
    if legacy_sigma is None:
      raise ValueError(
        f"{folder} is a legacy folder: {SETTINGS} is missing, so the width of"
        " the anchors' Gaussian is unknown. The official code used 2: give"
        " legacy_sigma=2."
      )
    tlm, size = _legacy(arrays, width, legacy_sigma), _LEGACY_SIZE
  table = tensors(tlm, width)
  match(
    table,
    found,
    what=f"TLM of {weights}",
    fix=f"The model's visual tokens have width {width} and the anchors"
    f" {tlm.bands} bands; take the TLM that was trained with this model.",
  )
  leaves = {
    row.path: np.ascontiguousarray(
      from_published(arrays[row.name], row.transform)
    )
    for row in table
  }
  with reading(settings):
    config = dataclasses.replace(config, tlm=tlm, image_size=size)
  return config, unflatten(leaves)["tlm"]


def _read_settings(path: Path):
  raw = read_object(path)
  if raw.get("format") != FORMAT:
    raise ValueError(
      f"{path}: format {raw.get('format')!r}, expected {FORMAT!r}."
    )
  try:
    tlm = TLMConfig(
      bands=int(raw["vec_dim"]),
      hidden_mult=int(raw["hidden_mult"]),
      sigma=float(raw["sigma"]),
    )
    size = raw["image_size"]
  except KeyError as e:
    raise ValueError(f"{path}: missing field {e.args[0]!r}.") from e
  except (TypeError, ValueError) as e:
    raise ValueError(f"{path}: {e}") from e
  if not tlm.sigma > 0:
    raise ValueError(f"{path}: sigma {tlm.sigma} must be positive.")
  if size is None:
    return tlm, None
  sides = size if isinstance(size, list) else [size, size]
  if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
    raise ValueError(
      f"{path}: image_size {size!r:.60}, expected a positive number of pixels,"
      " or [height, width]."
    )
  return tlm, (sides[0], sides[1])


def _legacy(arrays: dict, width: int, sigma: float) -> TLMConfig:
  """Infers the settings of a legacy folder from its tensors."""
  if sigma <= 0:
    raise ValueError(f"legacy_sigma {sigma} must be positive.")
  tlm = TLMConfig(sigma=float(sigma))
  first = arrays.get("0.weight")
  if first is None or first.ndim != 2:
    return tlm
  hidden, bands = first.shape
  tlm = dataclasses.replace(tlm, bands=bands)
  if hidden != tlm.hidden(width) and hidden % width == 0:
    tlm = dataclasses.replace(tlm, hidden_mult=hidden // width)
  return tlm


def write_tlm(folder: Path, config: FusarConfig, tlm_params: dict) -> None:
  """Writes both files into a folder that exists, in the official format.

  And the code with which transformers computes the TLM. Weights are always
  written as float32, the dtype in which the official code trains the projector.
  """
  tlm, size = config.tlm, config.image_size
  if tlm is None:
    raise ValueError(f"{folder}: the model has no TLM to write.")
  state = {}
  for row in tensors(tlm, config.vision.out_width):
    _, module, leaf = row.path.split("/")
    array = np.asarray(tlm_params[module][leaf], np.float32)
    state[row.name] = np.ascontiguousarray(to_published(array, row))
  write_torch(Path(folder) / WEIGHTS, {"film_mlp": state})
  if size is not None:
    size = size[0] if size[0] == size[1] else list(size)
  write_json(
    Path(folder) / SETTINGS,
    {
      "format": FORMAT,
      "sigma": tlm.sigma,
      "hidden_mult": tlm.hidden_mult,
      # The official code knows one side; [h, w] and null (images keep their
      # own size) are ours.
      "image_size": size,
      "vec_dim": tlm.bands,
    },
  )
  write_remote_code(Path(folder))
