"""Pictures, manifests, shards, TFDS data sets, importers and label files."""

import functools
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from geo_targets import anchors, write_raster
from PIL import Image
from target import (
  Target,
  as_json,
  into,
  lazy,
  write_picture,
  written,
)

_URI = (
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4"
  "nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
_ROWS = [
  {
    "id": "a",
    "image": "a.png",
    "aef": "a.npz",
    "coordinate_size": [56, 56],
    "task": "detection",
    "question": "How many ships? <image>",
    "answer": '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}]',
    "boxes": [[1, 2, 30, 40]],
    "labels": ["ship"],
  },
  {
    "image": ["a.png", "b.png"],
    "question": "?",
    "answer": {"count": 2},
    "history": [{"question": "a", "answer": "b", "loss": False}],
  },
]
_XML = (
  b"<annotation><filename>a.jpg</filename><size><width>56</width>"
  b"<height>56</height><depth>1</depth></size><object><name>ship</name>"
  b"<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>50</xmax><ymax>50</ymax>"
  b"</bndbox></object><object><name>tank</name><rotated_bndbox>"
  b"<rotated_bbox_cx>20</rotated_bbox_cx><rotated_bbox_cy>20</rotated_bbox_cy>"
  b"<rotated_bbox_w>9</rotated_bbox_w><rotated_bbox_h>5</rotated_bbox_h>"
  b"<rotated_bbox_theta>0.3</rotated_bbox_theta></rotated_bndbox><bndbox>"
  b"<xmin>10</xmin><ymin>10</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
  b"</object></annotation>"
)
_COCO = {
  "images": [{"id": 1, "file_name": "a.png", "width": 56, "height": 56}],
  "annotations": [
    {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 10.5, 20],
     "segmentation": [[1, 2, 11.5, 2, 11.5, 22]], "iscrowd": 0},
  ],
  "categories": [{"id": 2, "name": "ship"}],
}  # fmt: skip
_SCENE_COCO = _COCO | {
  "images": [{"id": 1, "file_name": "east.tif", "width": 40, "height": 32}]
}
_SARCHAT = [
  {
    "image": "a.png",
    "conversations": [
      {"from": "human", "value": "<image>\n[count] How many ships?"},
      {"from": "gpt", "value": "There is 1. {<1><2><30><40>}"},
    ],
  },
  {
    "image": "a.png",
    "conversations": [
      {"from": "human", "value": "<image>\n[refer] Where is the ship?"},
      {"from": "gpt", "value": "{<1><2><30><40>} ship"},
    ],
  },
]
_CHATS = [
  {"image": "a.png", "conversations": [
    {"from": "human", "value": "<image>\nWhere? [[1, 2, 30, 40, 9]]"},
    {"from": "gpt", "value": "{<1><2><30><40>|<9>}", "loss": True},
    {"from": "human", "value": "And [1, 2, 30, 40]?"},
    {"from": "gpt", "value": "<|box_start|>(1,2),(30,40)<|box_end|>"}]},
  {"images": ["a.png", "b.png"], "objects": {"ref": ["ship"], "bbox": [
    [0.1, 0.2, 0.3, 0.4]], "bbox_type": "norm1", "image_id": [0]}, "messages": [
    {"role": "user", "content": "<image><image> Find the <ref-object>"},
    {"role": "assistant", "content": "<bbox>", "loss": True}]},
  {"messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": _URI}},
    {"type": "text", "text": "?"}]}, {"role": "assistant", "content": "!"}]},
  {"query": "Why?", "response": "So.", "history": [["a", "b"]],
   "image": "a.png"},
  {"question": "a\\nb", "caption0": "c", "caption1": "", "caption2": "d",
   "image": "a.png", "vqa_type": "e", "question_id": 4},
]  # fmt: skip
_OPTIONS = [
  {"image_path": "a.png", "prompts": ["What?", "Which?"], "question_id": 1,
   "options": "A. race track   B. golf course", "ground_truth": "golf_course",
   "ground_truth_option": "B", "task": "scene"},
  {"image_path": "a.png", "prompts": ["How many?"], "ground_truth": 3,
   "options_list": ["1", "3"]},
]  # fmt: skip
_RSVQA = {
  "images": {"images": [{"id": 0, "active": True, "questions_ids": [0, 1]}]},
  "questions": {"questions": [
    {"id": 0, "img_id": 0, "type": "presence", "question": "Is there a road?",
     "answers_ids": [0, 1], "active": True}, {"id": 1, "active": False}]},
  "answers": {"answers": [
    {"id": 0, "answer": "no", "active": False},
    {"id": 1, "answer": "yes", "active": True}]},
}  # fmt: skip
_SCORED = [
  {
    "image": "a.png",
    "conversations": [
      {"from": "human", "value": "[count] How many cargo ships are there?"},
      {"from": "gpt", "value": "1 {<1><2><30><40>}"},
    ],
  }
]
_GEOJSON = {
  "type": "FeatureCollection",
  "crs": {"type": "name", "properties": {"name": "EPSG:32616"}},
  "features": [
    {
      "type": "Feature",
      "properties": {"class": "ship"},
      "geometry": {
        "type": "Polygon",
        "coordinates": [
          [[5e5, 4e6], [500050, 4e6], [500050, 3999950], [5e5, 4e6]]
        ],
      },
    }
  ],
}


def _pictures(folder: Path) -> list[bytes]:
  values = np.random.default_rng(0).integers(0, 255, (24, 30, 3), np.uint8)
  image = Image.fromarray(values)
  found = []
  for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000"):
    file = io.BytesIO()
    image.save(file, kind)
    found.append(file.getvalue())
  # With an overview.
  half: Any = image.reduce(2)
  half.encoderinfo = {"tiffinfo": {254: 1}}
  file = io.BytesIO()
  image.save(file, "TIFF", save_all=True, append_images=[half])
  found.append(file.getvalue())
  exif = Image.Exif()
  exif[0x0112] = 1
  file = io.BytesIO()
  image.save(file, "PNG", exif=exif)
  return [*found, file.getvalue()]


def _read_picture(path: Path) -> None:
  from fusar_jax.data import vision

  vision.image_size(path)
  vision.load_image(path)


def _pictures_around(folder: Path) -> None:
  for name in ("a.png", "b.png"):
    write_picture(folder / name)
  (folder / "a.npz").write_bytes(anchors(folder)[0])


def _manifests(folder: Path) -> list[bytes]:
  return [
    json.dumps(_ROWS).encode(),
    "".join(json.dumps(row) + "\n" for row in _ROWS).encode(),
  ]


@functools.cache
def _model():
  from fusar_jax.data.tokenizer import load_tokenizer
  from fusar_jax.hf.config_json import read_config
  from fusar_jax.hf.folders import TINY_BASE, resolve

  return read_config(resolve(TINY_BASE)), load_tokenizer(resolve(TINY_BASE))


def _read_manifest(path: Path) -> None:
  from fusar_jax.data.triplets import read_manifest

  for row in read_manifest(path):
    str((row.where, row.labels, row.boxes))


def _build_examples(path: Path) -> None:
  """What training does with a row."""
  from fusar_jax.data.examples import build_example
  from fusar_jax.data.triplets import read_manifest

  config, words = _model()
  for row in read_manifest(path):
    build_example(row, words, config, aux_targets=True)


def _export(path: Path, out: Path) -> None:
  from fusar_jax.datasets.export_chat import export_chat

  try:
    export_chat(path, path.parent, out, "ms-swift")
  finally:
    out.unlink(missing_ok=True)


def _inspect(path: Path) -> None:
  """What `doctor` does."""
  from fusar_jax.datasets.validation import inspect
  from fusar_jax.report.dataset_page import summary

  summary(inspect([path], *_model()))


def _write_shard(folder: Path) -> Path:
  from fusar_jax.datasets.shards import write_shards

  write_picture(folder / "m" / "a.png")
  rows = [{"id": "a", "image": "a.png", "question": "?", "answer": "1"}]
  (folder / "m" / "m.json").write_text(json.dumps(rows))
  return write_shards(str(folder / "m" / "m.json"), folder / "out", 1)[0]


def _read_packed(path: Path) -> None:
  from fusar_jax.data import vision
  from fusar_jax.data.triplets import read_manifest

  for row in read_manifest(path):
    for image in row.images:
      vision.image_size(image)
      vision.load_image(image)


def _tables(folder: Path) -> list[bytes]:
  from fusar_jax.data.records import read_table

  return [read_table(_write_shard(folder)).content]


def _read_shard_of(path: Path) -> None:
  """The input is the table of contents of a shard, which is intact."""
  from array_record.python.array_record_module import ArrayRecordWriter

  shard = path.with_suffix(".array_record")
  shard.unlink(missing_ok=True)
  writer = ArrayRecordWriter(str(shard), "group_size:1")
  writer.write(path.read_bytes())
  writer.write((path.parent / "a.png").read_bytes())
  writer.close()
  try:
    _read_packed(shard)
  finally:
    shard.unlink()


@functools.cache
def _tfds_files() -> dict[str, bytes]:
  import tempfile

  from fusar_jax.datasets.tfds_fusar.builder import build

  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    _pictures_around(folder)
    (folder / "m.json").write_text(json.dumps(_ROWS))
    made = build({"train": str(folder / "m.json")}, str(folder), shards=1)
    return {file.name: file.read_bytes() for file in made.iterdir()}


def _tfds(name: str) -> Target:
  """One file of a data set of TFDS; the others are intact."""

  def file() -> str:
    return next(n for n in _tfds_files() if name in n)

  def read(path: Path) -> None:
    from fusar_jax.data import tfds_reading

    # Two builds in one nanosecond would be one to the cache.
    tfds_reading._table.cache_clear()
    tfds_reading._source.cache_clear()
    real = path.with_name(file())
    if real != path:
      real.write_bytes(path.read_bytes())
    _read_packed(path.parent / "train")

  def around(folder: Path) -> None:
    for other, content in _tfds_files().items():
      (folder / other).write_bytes(content)

  suffix = name if name.endswith(".json") else "record.bin"
  return Target(read, lambda folder: [_tfds_files()[file()]], suffix, around)


def _importer(name: str, arguments) -> Callable:
  """A reader that imports; `arguments(path)`: (positional, options)."""

  def read(path: Path, out: Path) -> None:
    from fusar_jax.datasets.importers.dataset_folder import Origin

    given, options = arguments(path)
    lazy(f"datasets.importers.{name}", f"import_{name}")(
      *given, out, origin=Origin("the fuzzer", "none stated"), **options
    )

  return into("out", read)


def _geovl(folder: Path) -> list[bytes]:
  from fusar_jax.tasks.captioning import FIELDS

  record = {"image_id": 17, **{k: f"{v} coast." for k, v in FIELDS.items()}}
  return [json.dumps([record]).encode()]


def _images(*names: str):
  """Pictures in images/, named apart from what the importers write."""

  def write(folder: Path) -> None:
    for name in names:
      write_picture(folder / "images" / name)

  return write


def _rsvqa(folder: Path) -> None:
  write_picture(folder / "images" / "0.png")
  for name in ("images", "answers"):
    (folder / f"{name}.json").write_text(json.dumps(_RSVQA[name]))


@functools.cache
def _scenes(folder: Path) -> list:
  from fusar_jax.datasets.prepare.sources import Look, open_scenes

  return open_scenes([write_raster(folder / "east.tif")], Look(size=28))[0]


def _read_labels(path: Path) -> None:
  from fusar_jax.datasets.prepare.labels import read_labels

  scenes = _scenes(path.parent / "scenes")
  read_labels([path], scenes, unmentioned_are_empty=True)


def _label_target(suffix: str, seeds) -> Target:
  def around(folder: Path) -> None:
    (folder / "scenes").mkdir()
    _scenes(folder / "scenes")

  return Target(_read_labels, seeds, suffix, around)


def _vector_target(suffix: str) -> Target:
  return _label_target(suffix, lambda f: [_vector(f / f"a{suffix}")])


def _vector(path: Path) -> bytes:
  import shapely
  from pyogrio import raw

  from fusar_jax.datasets.prepare.features import DRIVERS

  shapes = [shapely.box(5e5, 3999950, 500050, 4e6)]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    raw.write(
      path, np.array(shapely.to_wkb(shapes), object),
      [np.array(["ship"], object)], ["class"], crs="EPSG:32616",
      driver=DRIVERS[path.suffix][0], geometry_type="Polygon",
    )  # fmt: skip
  return path.read_bytes()


def _geoparquet(path: Path) -> bytes:
  import pyarrow.parquet
  import shapely

  column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
  geo = {"primary_column": "shape", "columns": {"shape": column}}
  table = pyarrow.table(
    {"shape": [shapely.to_wkb(shapely.box(8, 35, 9, 36))], "class": ["ship"]}
  ).replace_schema_metadata({"geo": json.dumps(geo)})
  pyarrow.parquet.write_table(table, path)
  return path.read_bytes()


_SHIPS = (
  b"<ShipList><ship><SARShipInformation><Head_x>9</Head_x><Head_y>9</Head_y>"
  b"<Tail_x>12</Tail_x><Tail_y>9</Tail_y><UpperLeft_x>2</UpperLeft_x>"
  b"<UpperLeft_y>3</UpperLeft_y><LowerRight_x>20</LowerRight_x><LowerRight_y>"
  b"30</LowerRight_y></SARShipInformation><AISShipInformation><Length>120"
  b"</Length><Width>20</Width></AISShipInformation></ship></ShipList>"
)


def _shape_target(name: str) -> Target:
  """One file of a Shapefile; the others are intact."""

  def around(folder: Path) -> None:
    (folder / "scenes").mkdir()
    _scenes(folder / "scenes")
    _vector(folder / "a.shp")

  return Target(
    lambda path: _read_labels(path.with_suffix(".shp")),
    lambda folder: [_vector(folder / "a.shp") and (folder / name).read_bytes()],
    name,
    around,
    named=("a.shp",),
  )


TARGETS = {
  "chat": Target(
    _importer("chat", lambda p: ((p, p.parent / "images"), {})),
    as_json(_CHATS), ".json", _images("a.png", "b.png"),
  ),
  "coco": Target(
    _importer("coco", lambda p: ((p.parent / "images", p), {})),
    as_json(_COCO), ".json", _images("a.png"),
  ),
  "doctor": Target(_inspect, _manifests, ".jsonl", _pictures_around),
  "examples": Target(_build_examples, _manifests, ".jsonl", _pictures_around),
  "export": Target(
    into("out.jsonl", _export), _manifests, ".jsonl", _pictures_around
  ),
  "folders": Target(
    _importer("folders", lambda p: ((p.parents[1],), {})),
    _pictures, "ship/input_2024.png",
    lambda folder: write_picture(folder / "tank" / "a.png"),
  ),
  "geovl": Target(
    _importer("geovl", lambda p: ((p, p.parent / "images"), {})),
    _geovl, ".json", _images("017.png"),
  ),
  "labels csv": _label_target(
    ".csv",
    lambda folder: [
      b"scene,x1,y1,x2,y2,label\neast,1,2,30,20,ship\neast,,,,,\n",
      b"west,south,east,north,label\n8,35,8.1,35.1,ship\n",
      b'label,wkt\nship,"POLYGON ((8 35, 9 35, 9 36, 8 35))"\n',
      b"scene_id,detect_scene_row,detect_scene_column,is_vessel,confidence,"
      b"top,left,bottom,right\neast,9,9,True,HIGH,3,4,20,21\n",
    ],
  ),
  "labels fgb": _vector_target(".fgb"),
  "labels parquet": _label_target(
    ".parquet", lambda f: [_geoparquet(f / "a.parquet")]
  ),
  "labels xml": _label_target(".xml", lambda folder: [_SHIPS]),
  "labels gpkg": _vector_target(".gpkg"),
  "labels json": _label_target(".json", as_json(_GEOJSON, _SCENE_COCO)),
  "labels shp": _shape_target("a.shp"),
  "labels dbf": _shape_target("a.dbf"),
  "manifest": Target(_read_manifest, _manifests, ".jsonl", _pictures_around),
  "options": Target(
    _importer("options", lambda p: ((p, p.parent / "images"), {})),
    as_json(_OPTIONS), ".json", _images("a.png"),
  ),
  "picture": Target(_read_picture, _pictures, ".png"),
  "rsvqa": Target(
    _importer("rsvqa", lambda p: (([p.parent / "images.json", p,
      p.parent / "answers.json"], p.parent / "images"), {"extension": ".png"})),
    as_json(_RSVQA["questions"]), "questions.json", _rsvqa,
    named=("images.json",),
  ),
  "sarchat": Target(
    _importer("sarchat", lambda p: ((p, p.parent / "images"), {})),
    as_json(_SARCHAT), ".json", _images("a.png"),
  ),
  "sarchat scored": Target(
    _importer(
      "sarchat", lambda p: ((p, p.parent / "images"), {"scored": True})
    ),
    as_json(_SCORED), ".json", _images("a.png"),
  ),
  "shard": Target(_read_packed, written(_write_shard), ".array_record"),
  "shard table": Target(
    _read_shard_of, _tables, ".json",
    lambda folder: write_picture(folder / "a.png"),
  ),
  "split file": Target(
    lazy("datasets.importers.splits", "read_split"),
    lambda folder: [b"000001 1\n000002 -1\n"], ".txt",
  ),
  "dota": Target(
    _importer("dota", lambda p: ((p.parents[1] / "images", p.parent), {})),
    lambda folder: [b"gsd:0.3\n1 1 9 1 9 9 1 9 ship 0\n2 3 8 3 8 9 2 9 tank\n"],
    "labels/input_2024.txt", _images("input_2024.png"),
  ),
  "tfds features": _tfds("features.json"),
  "tfds info": _tfds("dataset_info.json"),
  "tfds records": _tfds("record-"),
  "voc": Target(
    _importer("voc", lambda p: ((p.parents[1] / "images", p.parent), {})),
    lambda folder: [_XML], "labels/input_2024.xml",
    _images("input_2024.png"),
  ),
  "yolo": Target(
    _importer(
      "yolo",
      lambda p: (
        (p.parents[1] / "images", p.parent), {"names": ("ship", "tank")}
      ),
    ),
    lambda folder: [b"0 0.5 0.5 0.2 0.1\n1 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.3\n"],
    "labels/input_2024.txt", _images("input_2024.png"),
  ),
  "yolo names": Target(
    lazy("datasets.importers.yolo", "read_names"),
    lambda folder: [b"ship\ntank\n"], ".txt",
  ),
}  # fmt: skip
