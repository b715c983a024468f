"""Importer commands: output and rejected input."""

import importlib
import json

import pytest

from fusar_jax.data.triplets import read_manifest

NAMES = ["voc", "coco", "yolo", "dota", "folders", "sarchat", "geovl"]

VOC = """<annotation><size><width>90</width><height>60</height></size><object>
<name>ship</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>
<ymax>40</ymax></bndbox></object></annotation>"""
COCO = {
  "images": [{"id": 1, "file_name": "1.png", "height": 60, "width": 90}],
  "annotations": [{"image_id": 1, "bbox": [1, 2, 29, 38], "category_id": 0}],
  "categories": [{"id": 0, "name": "ship"}],
}
DIALOGUE = {
  "image": "1.png",
  "messages": [
    {"role": "user", "content": "[refer] Where is the ship?"},
    {"role": "assistant", "content": "{<1><2><30><40>}"},
  ],
}
FIELDS = (
  "Terrain Functionality Distribution Layout Boundary Buildings Roads Water"
)
CAPTION = {"image_id": 1, **dict.fromkeys(FIELDS.split(), "none")}


@pytest.fixture
def options(tmp_path, save):
  """Options of each command: one image with one ship."""
  image = save(tmp_path / "root" / "ship" / "1.png")
  (tmp_path / "1.xml").write_text(VOC)
  (tmp_path / "1.txt").write_text("0 0.5 0.5 0.1 0.1\n")
  (tmp_path / "dota").mkdir()
  (tmp_path / "dota/1.txt").write_text("1 2 30 2 30 40 1 40 ship 0\n")
  for name, value in (
    ("coco.json", COCO),
    ("dialogues.json", [DIALOGUE]),
    ("captions.json", [CAPTION]),
  ):
    (tmp_path / name).write_text(json.dumps(value))
  own = {
    "voc": ["--annotations", tmp_path],
    "coco": ["--annotations", tmp_path / "coco.json"],
    "yolo": ["--labels", tmp_path, "--names", "ship"],
    "dota": ["--labels", tmp_path / "dota"],
    "folders": [],
    "sarchat": ["--dialogues", tmp_path / "dialogues.json"],
    "geovl": ["--captions", tmp_path / "captions.json"],
  }

  def build(name):
    images = tmp_path / "root" if name == "folders" else image.parent
    words = ["--images", images, "--out", tmp_path / "out", *own[name]]
    words += ["--source", "made for this test", "--copy"]
    return [*map(str, words), "--license", "none stated"]

  return build


@pytest.mark.parametrize("name", NAMES)
def test_a_command_writes_a_data_set_once(name, options, tmp_path, capsys):
  main = importlib.import_module(f"fusar_jax.datasets.importers.{name}").main
  assert main(options(name)) == 0
  rows = 3 if name in ("voc", "coco", "yolo", "dota") else 1
  assert f"{rows} rows of 1 images" in capsys.readouterr().out
  triplets = read_manifest(tmp_path / "out" / "manifest.jsonl")
  assert len(triplets) == rows
  assert all(t.images[0].is_file() for t in triplets)
  card = json.loads((tmp_path / "out" / "dataset.json").read_text())
  assert card["importer"] == name
  assert card["source"] == "made for this test"
  assert main([*options(name), "--drop-refused"]) == 1
  error = capsys.readouterr().err
  assert "is not empty" in error
  assert "--drop-refused is deprecated; use --drop-rejected." in error


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_licence_is_null_and_a_blank_one_an_error(
  name, options, tmp_path, capsys
):
  main = importlib.import_module(f"fusar_jax.datasets.importers.{name}").main
  assert main([*options(name)[:-1], " "]) == 1
  assert "license of the data is blank" in capsys.readouterr().err
  assert not (tmp_path / "out").exists()
  assert main(options(name)[:-2]) == 0
  card = json.loads((tmp_path / "out" / "dataset.json").read_text())
  assert (card["source"], card["license"]) == ("made for this test", None)
