"""`image_text_config.json`: the image size of a model without TLM.

The official scripts without AlphaEarth anchors write {"image_size": 504,
"use_tlm": false} next to the LoRA adapter, in place of the TLM's two files (see
`tlm_file`).
"""

import dataclasses
from pathlib import Path
from typing import Any

from fusar_jax.hf.config_json import write_json
from fusar_jax.io.strict_json import read_object
from fusar_jax.model.config import FusarConfig

FILE = "image_text_config.json"


def read_image_text(folder: Path) -> tuple[int, int] | None:
  """Returns the (height, width) in a folder's FILE, or None without FILE.

  Raises:
    ValueError: malformed, or of a model with TLM.
  """
  path = Path(folder) / FILE
  if not path.is_file():
    return None
  raw = read_object(path)
  if raw.get("use_tlm") is not False:
    raise ValueError(
      f"{path}: use_tlm {raw.get('use_tlm')!r}, expected false: the file"
      " belongs to adapters without TLM."
    )
  size = raw.get("image_size")
  sides: list[Any] = size if isinstance(size, list) else [size, size]
  if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
    raise ValueError(
      f"{path}: image_size {size!r}, expected a positive number of pixels, or"
      " [height, width]."
    )
  return sides[0], sides[1]


def write_image_text(folder: Path, config: FusarConfig) -> None:
  """Writes FILE for a model with a fixed image size, otherwise nothing.

  The format cannot express variable image sizes.
  """
  if config.image_size is None:
    return
  height, width = config.image_size
  write_json(
    Path(folder) / FILE,
    {
      # The official code has one side; [height, width] is ours.
      "image_size": height if height == width else [height, width],
      "use_tlm": False,
    },
  )


def at_image_size(
  config: FusarConfig, size: tuple[int, int], source: str
) -> FusarConfig:
  """Returns the config with a requested image size.

  Args:
    config: of the model, with the size that its files record, or None.
    size: (height, width), multiples of 28.
    source: of the request, for the message, e.g. "--image-size".

  Raises:
    ValueError: the model's files record another size, or the size is no
      multiple of the side of a visual token.
  """
  if config.image_size is not None and config.image_size != tuple(size):
    raise ValueError(
      f"{source} {_text(size)} contradicts the model's recorded size"
      f" {_text(config.image_size)}, at which it was trained."
    )
  return dataclasses.replace(config, image_size=tuple(size))


def _text(size: tuple[int, int]) -> str:
  return str(size[0]) if size[0] == size[1] else f"{size[0]} x {size[1]}"
