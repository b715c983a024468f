"""GEOVL captions: field order, and dropout that matches the question."""

import json

import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import geovl
from fusar_jax.tasks import captioning

FIELDS = {name: f"{text} {name}s" for name, text in captioning.FIELDS.items()}


@pytest.fixture
def folder(tmp_path, save):
  for value, name in enumerate(["007", "8", "tile_9"]):
    save(tmp_path / "images" / f"{name}.png", value=value)
  return tmp_path


def _import(folder, records, origin, images="images", **options):
  path = folder / "captions.json"
  path.write_text(json.dumps(records))
  return geovl.import_geovl(
    path,
    folder / images if images else None,
    folder / "out",
    origin=origin,
    **options,
  )


def _records(*identities):
  return [{"image_id": identity, **FIELDS} for identity in identities]


def test_eight_fields_in_their_order(folder, origin):
  records = [dict(reversed(r.items())) for r in _records(7, "8", "tile_9")]
  triplets = read_manifest(_import(folder, records, origin))
  assert [t.images[0].stem for t in triplets] == ["007", "8", "tile_9"]
  for triplet in triplets:
    assert triplet.task == "captioning"
    assert triplet.question == captioning.question()
    assert triplet.answer == " ".join(f"{t}." for t in FIELDS.values())


def test_dropout_leaves_out_what_the_question_does_not_ask_for(folder, origin):
  manifest = _import(
    folder, _records(7, 8, "tile_9"), origin, field_dropout=0.5, seed=3
  )
  for triplet in read_manifest(manifest):
    reported = captioning.parse(triplet.answer).fields
    asked = triplet.question.split("its ")[1].rstrip(".")
    names = asked.replace(" and ", ", ").split(", ")
    assert names == [name.lower() for name in reported]
    assert 1 <= len(reported) < 8
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert (card["field_dropout"], card["seed"]) == (0.5, 3)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"Water": " "}, "no text in Water"),
    ({"Water": None}, "no text in Water"),
    ({"Wetter": "dry"}, r"unknown \['Wetter'\]"),
    ({"image_id": None}, 'expected an "image_id", got None'),
    ({"image_id": 8}, "used by row 1 already"),
    ({"image_id": 10}, r"no image 10\.\* in"),
    ({"image_id": "../images/8"}, r"no image \.\./images/8"),
  ],
)
def test_bad_records_stop_or_are_listed(folder, origin, change, message):
  records = _records(8, 7)
  records[1] |= change
  with pytest.raises(
    ValueError, match=rf"bad records \(1\):\n  row 2: .*{message}"
  ):
    _import(folder, records, origin, field_dropout=0.9)
  assert not (folder / "out").exists()
  manifest = _import(folder, records, origin, drop_rejected=True)
  assert len(read_manifest(manifest)) == 1


def test_a_name_of_two_images_is_rejected(folder, origin, save):
  save(folder / "images" / "more" / "7.png", value=50)
  with pytest.raises(ValueError, match=r"several images .*: 007\.png, more/7"):
    _import(folder, _records(7), origin)


def test_other_refusals(folder, origin):
  with pytest.raises(ValueError, match=r"must be in \[0, 1\), got 1"):
    _import(folder, _records(7), origin, field_dropout=1)
  with pytest.raises(ValueError, match="no records"):
    _import(folder, [], origin)
  with pytest.raises(ValueError, match="expected an object, got list"):
    _import(folder, [[]], origin)
  with pytest.raises(FileNotFoundError, match="folder not found"):
    _import(folder, _records(7), origin, images="nowhere")


def test_the_published_captions(shared, tmp_path, save, origin):
  """1000 records without images: rejected; three pictures make three rows."""
  source = shared / "data" / "fusar_klip_captions" / "caption_part1.json"
  with pytest.raises(ValueError, match="1000 captions, but no images"):
    geovl.import_geovl(source, None, tmp_path / "out", origin=origin)
  for number in (0, 17, 999):
    save(tmp_path / "images" / f"{number:06d}.png", value=number % 200)
  with pytest.raises(ValueError, match=r"bad records \(997\)"):
    geovl.import_geovl(
      source, tmp_path / "images", tmp_path / "out", origin=origin
    )
  manifest = geovl.import_geovl(
    source,
    tmp_path / "images",
    tmp_path / "out",
    origin=origin,
    drop_rejected=True,
  )
  triplets = read_manifest(manifest)
  assert [t.id for t in triplets] == [f"{n}-captioning" for n in (0, 17, 999)]
  records = json.loads(source.read_text())
  for triplet, number in zip(triplets, (0, 17, 999), strict=True):
    fields = captioning.parse(triplet.answer).fields
    assert list(fields) == list(captioning.FIELDS)
    for name, text in fields.items():
      assert records[number][name].rstrip(".").endswith(text)
