"""Images as data URIs."""

import base64
import io

import numpy as np
from PIL import Image


def data_uri(image: np.ndarray, kind: str = "PNG", **options) -> str:
  """Returns uint8[H, W, 3] as a data URI; a grey image has one channel.

  Args:
    image: the pixels.
    kind: "PNG", which is lossless, or "JPEG".
    **options: of `PIL.Image.Image.save`, such as quality.
  """
  grey = (image == image[..., :1]).all()
  file = io.BytesIO()
  Image.fromarray(image[..., 0] if grey else image).save(file, kind, **options)
  text = base64.b64encode(file.getvalue()).decode()
  return f"data:image/{kind.lower()};base64,{text}"
