"""The readers that strangers' files and texts reach, with valid inputs of each.

A target takes the path of a file, or a text. It may return anything and raise
ValueError or OSError; of a file, the message must contain its name.
"""

import dataclasses
import importlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

_RNG = np.random.default_rng(0)
_ROWS = [
  {
    "id": "a",
    "image": "a.png",
    "aef": "a.npz",
    "coordinate_size": [56, 56],
    "question": "How many ships? <image>",
    "answer": "3",
    "boxes": [[1, 2, 30.5, 40]],
    "labels": ["ship"],
  },
  {"image": ["a.png", "b.png"], "question": "?", "answer": {"count": 2}},
]
_TEXTS = (
  '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}]',
  '```json\n[{"bbox_2d": [1, 2, 30, 40], \'label\': "ship"},\n]\n```',
  "There are twenty-one ships, 1,234 in all.",
  "<|box_start|>(1,2),(3,4)<|box_end|> {<1><2><30><40>} [refer]",
  "top-left, center, bottom-right",
  "The terrain is classified as coast. Road presence: some roads.",
  "What is in [1, 2, 3, 4]? Choose from: cargo ship, fishing ship.",
  "None",
)


@dataclasses.dataclass(frozen=True)
class Target:
  """One reader.

  Attributes:
    read: takes a Path, or a str if `suffix` is empty.
    seeds: returns valid inputs; runs in a scratch folder.
    suffix: of the file, ".json"; empty: the input is text.
  """

  read: Callable[[Any], object]
  seeds: Callable[[Path], list[bytes]]
  suffix: str = ""


def _json(*values) -> Callable[[Path], list[bytes]]:
  return lambda folder: [json.dumps(value).encode() for value in values]


def _texts(folder: Path) -> list[bytes]:
  return [text.encode() for text in _TEXTS]


def _lazy(module: str, name: str, *args) -> Callable:
  """Imports when called: a worker imports what its target needs alone."""

  def read(value):
    function = importlib.import_module(f"fusar_jax.{module}")
    for part in name.split("."):
      function = getattr(function, part)
    return function(value, *args)

  return read


def _pictures(folder: Path) -> list[bytes]:
  image = Image.fromarray(_RNG.integers(0, 255, (24, 30, 3), np.uint8))
  found = []
  for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000"):
    file = io.BytesIO()
    image.save(file, kind)
    found.append(file.getvalue())
  # With an overview.
  half = image.reduce(2)
  half.encoderinfo = {"tiffinfo": {254: 1}}
  file = io.BytesIO()
  image.save(file, "TIFF", save_all=True, append_images=[half])
  found.append(file.getvalue())
  return found


def _rasters(folder: Path) -> list[bytes]:
  found = []
  for bands, dtype, options in (
    (1, "uint16", {}),
    (2, "float32", {"tiled": True, "blockxsize": 16, "blockysize": 16}),
    (1, "complex64", {"compress": "deflate"}),
  ):
    path = folder / "a.tif"
    with rasterio.open(
      path, "w", driver="GTiff", height=32, width=40, count=bands, dtype=dtype,
      crs="EPSG:32616", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
      nodata=0, **options,
    ) as file:  # fmt: skip
      file.write(_RNG.integers(1, 900, (bands, 32, 40)).astype(dtype))
    found.append(path.read_bytes())
  return found


def _tiles(folder: Path) -> list[bytes]:
  path = folder / "aef_2024.tif"
  with rasterio.open(
    path, "w", driver="GTiff", height=16, width=16, count=64, dtype="int8",
    crs="EPSG:32616", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
    nodata=-128,
  ) as file:  # fmt: skip
    file.write(_RNG.integers(-127, 127, (64, 16, 16)).astype(np.int8))
    for band in range(64):
      file.set_band_description(band + 1, f"A{band:02d}")
  return [path.read_bytes()]


def _arrays(*arrays: np.ndarray) -> list[bytes]:
  found = []
  for array in arrays:
    file = io.BytesIO()
    np.save(file, array)
    found.append(file.getvalue())
  return found


def _anchors(folder: Path) -> list[bytes]:
  features = (_RNG.normal(size=(5, 64)) / 8).astype(np.float32)
  positions = _RNG.random((5, 2)).astype(np.float32)
  found = []
  for save in (np.savez, np.savez_compressed):
    file = io.BytesIO()
    save(file, features=features, positions=positions)
    found.append(file.getvalue())
  return found


def _torch(folder: Path) -> list[bytes]:
  from fusar_jax.hf.torch_file import write_torch

  state = {"0.weight": np.ones((4, 3), np.float32), "0.bias": np.zeros(4)}
  write_torch(folder / "a.pt", {"film_mlp": state})
  return [(folder / "a.pt").read_bytes()]


def _safetensors(folder: Path) -> list[bytes]:
  from safetensors.numpy import save

  return [save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int8)})]


def _read_safetensors(path: Path) -> None:
  from fusar_jax.hf.weights import Weights

  weights = Weights([path])
  for item in weights.found():
    weights.read(item)


def _sentencepiece(folder: Path) -> list[bytes]:
  from fusar_jax.data.tokenizer import train_sentencepiece

  train_sentencepiece(_TEXTS, folder / "a.model", vocab_size=400, numbers=20)
  return [(folder / "a.model").read_bytes()]


def _read_raster(path: Path) -> None:
  from fusar_jax.geo.rasters import open_raster

  open_raster(path).read()


def _read_tile(path: Path) -> None:
  from fusar_jax.geo.alphaearth_tiles import TileReader

  reader = TileReader(str(path))
  header = reader.header
  reader.vectors(
    reader.read(0, 0, min(header.height, 16), min(header.width, 16)).reshape(
      64, -1
    )
  )
  reader.close()


def _read_config(path: Path) -> None:
  from fusar_jax.hf.config_json import read_config

  read_config(path.rename(path.with_name("config.json")).parent)


def _config(folder: Path) -> list[bytes]:
  from fusar_jax.hf.folders import TINY_BASE, resolve

  return [(resolve(TINY_BASE) / "config.json").read_bytes()]


def _tokenizer_json(folder: Path) -> list[bytes]:
  tokenizers = __import__("tokenizers")
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=200, special_tokens=["<|im_end|>"], show_progress=False
  )
  made.train_from_iterator(_TEXTS, trainer)
  return [made.to_str().encode()]


def _shards(folder: Path) -> list[bytes]:
  from fusar_jax.datasets.shards import write_shards

  (folder / "m").mkdir()
  Image.new("L", (56, 56)).save(folder / "m" / "a.png")
  rows = [{"id": "a", "image": "a.png", "question": "?", "answer": "1"}]
  (folder / "m" / "m.json").write_text(json.dumps(rows))
  write_shards(str(folder / "m" / "m.json"), folder / "out", 1)
  (shard,) = (folder / "out").glob("*.array_record")
  return [shard.read_bytes()]


def _parse_all(text: str) -> None:
  from fusar_jax.tasks import (
    boxes,
    captioning,
    classification,
    counting,
    grounding,
    official_answers,
    predictions,
    sarchat,
  )

  counting.parse(text)
  boxes.parse_complete(text, 1)
  grounding.parse(text)
  captioning.parse(text)
  classification.parse(text, ("cargo ship", "fishing ship"))
  classification.choices(text)
  official_answers.official_error(text)
  predictions.guess_task(text)
  for subtask in sarchat.SUBTASKS:
    sarchat.parse(text, subtask)


def _questions(text: str) -> None:
  from fusar_jax.data import prompts
  from fusar_jax.metrics.baselines import questions

  questions.words(text)
  questions.box(text)
  prompts.plain(text)


_XML = (
  b"<annotation><filename>a.jpg</filename><size><width>500</width>"
  b"<height>400</height><depth>1</depth></size><object><name>ship</name>"
  b"<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>50</xmax><ymax>70</ymax>"
  b"</bndbox></object></annotation>"
)
_COCO = {
  "images": [{"id": 1, "file_name": "a.png", "width": 50, "height": 40}],
  "annotations": [
    {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 10.5, 20]}
  ],
  "categories": [{"id": 2, "name": "ship"}],
}
_SARCHAT = [
  {
    "image": "a.jpg",
    "conversations": [
      {"from": "human", "value": "<image>\n[count] How many ships?"},
      {"from": "gpt", "value": "There are 2. {<1><2><30><40>}"},
    ],
  }
]
_PREDICTIONS = {
  "id": "a",
  "task": "detection",
  "question": "?",
  "gt": _TEXTS[0],
  "prediction_text": _TEXTS[1],
  "coordinate_size": [56, 56],
}

TARGETS = {
  "anchors": Target(_lazy("geo.anchors", "read_anchors"), _anchors, ".npz"),
  "anchor table": Target(
    _lazy("geo.anchors", "read_anchors"),
    lambda folder: _arrays(_RNG.random((5, 70)) / 8),
    ".npy",
  ),
  "answers": Target(_parse_all, _texts),
  "array": Target(
    _read_raster,
    lambda folder: _arrays(np.ones((9, 9)), np.ones((2, 9, 9), np.uint16)),
    ".npy",
  ),
  "coco": Target(
    _lazy("datasets.importers.coco", "read_annotations"), _json(_COCO), ".json"
  ),
  "config": Target(_read_config, _config, ".json"),
  "generation config": Target(
    lambda path: _lazy("hf.generation_config", "GenerationDefaults.read")(
      path.rename(path.with_name("generation_config.json")).parent
    ),
    _json({"temperature": 0.1, "top_k": 50, "eos_token_id": [1, 2]}),
    ".json",
  ),
  "manifest": Target(
    _lazy("data.triplets", "read_manifest"),
    lambda folder: [
      json.dumps(_ROWS).encode(),
      "".join(json.dumps(row) + "\n" for row in _ROWS).encode(),
    ],
    ".jsonl",
  ),
  "picture": Target(_lazy("data.vision", "load_image"), _pictures, ".png"),
  "predictions": Target(
    _lazy("tasks.predictions", "read_predictions"),
    _json(_PREDICTIONS),
    ".jsonl",
  ),
  "questions": Target(_questions, _texts),
  "raster": Target(_read_raster, _rasters, ".tif"),
  "safetensors": Target(_read_safetensors, _safetensors, ".safetensors"),
  "sarchat": Target(
    _lazy("datasets.importers.annotation_json", "read_records"),
    _json(_SARCHAT),
    ".json",
  ),
  "sarchat boxes": Target(
    _lazy("datasets.importers.sarchat", "read_boxes"),
    lambda folder: [b"There are 2. {<1><2><30><40>} {<5><6><7.5><8>}"],
  ),
  "sentencepiece": Target(
    _lazy("data.tokenizer", "load_tokenizer"), _sentencepiece, ".model"
  ),
  "shard": Target(
    _lazy("data.records", "read_table"), _shards, ".array_record"
  ),
  "tile": Target(_read_tile, _tiles, ".tif"),
  "tokenizer": Target(
    _lazy("data.tokenizer", "load_tokenizer"), _tokenizer_json, ".json"
  ),
  "torch": Target(_lazy("hf.torch_file", "read_torch"), _torch, ".pt"),
  "voc": Target(
    _lazy("datasets.importers.voc", "read_annotation"),
    lambda folder: [_XML],
    ".xml",
  ),
  "yolo": Target(
    _lazy("datasets.importers.yolo", "read_labels", (40, 50), ("ship", "tank")),
    lambda folder: [b"0 0.5 0.5 0.2 0.1\n1 0.1 0.2 0.1 0.1\n"],
    ".txt",
  ),
}
