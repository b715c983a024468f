"""Manifests: the official layout, and everything that can be wrong with one."""

import contextlib
import json

import numpy as np
import pytest

from fusar_jax.data.triplets import (
  read_manifest,
  read_manifest_leniently,
  write_manifest,
)

ROW = {
  "id": "a",
  "image": "images/a.png",
  "aef": "anchors/a.npz",
  "coordinate_size": 504,
  "question": "Where?",
  "answer": [{"bbox_2d": [1, 2, 3, 4], "label": "plane"}],
}


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_official_rows(tmp_path, name):
  """Both layouts; paths beside the manifest; a list answer is dumped."""
  rows = [ROW, {**ROW, "id": 7, "image": ["b.png", "c.png"]}]
  rows[1] |= {"aef": [None, "c.npz"], "coordinate_size": [100, 200]}
  rows[1] |= {"answer": "漢", "note": {"kept": 1}}
  write_manifest(tmp_path / name, rows)
  first, second = read_manifest(tmp_path / name)
  assert first.images == (tmp_path / "images/a.png",)
  assert first.anchors == (tmp_path / "anchors/a.npz",)
  assert first.coordinate_size == (504, 504)
  assert first.answer == '[{"bbox_2d": [1, 2, 3, 4], "label": "plane"}]'
  assert second.id == "7"
  assert second.anchors == (None, tmp_path / "c.npz")
  assert second.coordinate_size == (100, 200)
  assert second.answer == "漢"
  assert second.extra == {"note": {"kept": 1}}
  assert (second.row, second.where) == (2, f'{tmp_path / name} row 2 (id "7")')


def test_an_image_without_anchors(tmp_path):
  rows = [{k: v for k, v in ROW.items() if k not in ("aef", "coordinate_size")}]
  write_manifest(tmp_path / "m.jsonl", rows)
  (triplet,) = read_manifest(tmp_path / "m.jsonl")
  assert triplet.anchors == (None,)
  assert triplet.coordinate_size is None


def test_line_separators_inside_strings_are_no_rows(tmp_path):
  text = json.dumps({**ROW, "question": "a\u2028b\x85c"}, ensure_ascii=False)
  (tmp_path / "m.jsonl").write_text(f"\n{text}\r\n\n", encoding="utf-8")
  (triplet,) = read_manifest(tmp_path / "m.jsonl")
  assert triplet.question == "a\u2028b\x85c"
  assert triplet.row == 2


def test_all_bad_rows_are_told_together(tmp_path):
  def without(key):
    return {k: v for k, v in ROW.items() if k != key}

  rows = [
    ROW,
    without("question"),
    {**ROW, "id": "c", "aef": ["x.npz", "y.npz"]},
    {**ROW, "id": "d", "coordinate_size": [0, 5]},
    ROW,
    [],
    {**ROW, "id": "e", "boxes": [[1, 2, 3]], "labels": ["ship"]},
    {**ROW, "id": "f", "image": []},
  ]
  write_manifest(tmp_path / "m.jsonl", rows)
  with (tmp_path / "m.jsonl").open("a") as file:
    file.write('{"id": "g", "image')
  with pytest.raises(ValueError, match="refused") as caught:
    read_manifest(tmp_path / "m.jsonl")
  told = str(caught.value)
  assert "row 2: missing 'question'" in told
  assert "row 3: 1 images but 2 'aef' files" in told
  assert "row 4: 'coordinate_size'" in told
  assert 'row 5: id "a" was used by row 1 already' in told
  assert "row 6: expected an object, got list" in told
  assert "row 7: 'boxes'" in told
  assert "row 8: 'image' names no file" in told
  assert "row 9: not JSON" in told
  assert "row 1:" not in told
  good, refused = read_manifest_leniently(tmp_path / "m.jsonl")
  assert [t.id for t in good] == ["a"]
  assert len(refused) == 8


@pytest.mark.parametrize("text", ["", "\n \n", "[]"])
def test_an_empty_manifest_is_an_error(tmp_path, text):
  (tmp_path / "m.jsonl").write_text(text)
  with pytest.raises(ValueError, match="empty"):
    read_manifest(tmp_path / "m.jsonl")
  with pytest.raises(FileNotFoundError, match="manifest not found"):
    read_manifest(tmp_path / "other.jsonl")
  with pytest.raises(FileNotFoundError, match="it is a folder, give a file"):
    read_manifest(tmp_path)


def test_fuzz_gives_nothing_but_value_errors(tmp_path):
  """Cut and mutated manifests, and values of every wrong type."""
  rng = np.random.default_rng(0)
  rows = [{**ROW, "id": str(i), "boxes": [[1, 2, 3, 4]]} for i in range(3)]
  rows = [{**row, "labels": ["ship"], "task": "detection"} for row in rows]
  odd = [None, True, -1, 1.5, 1e400, "", "\0", [], [[]], {}, [None], "x" * 300]
  path = tmp_path / "m.json"
  for trial in range(600):
    kind = trial % 3
    if kind == 0:
      row = dict(rows[0])
      row[rng.choice(list(row))] = odd[rng.integers(len(odd))]
      data = json.dumps([row]).encode()
    else:
      lines = [json.dumps(row) for row in rows]
      text = "\n".join(lines) if trial % 2 else f"[{','.join(lines)}]"
      data = bytearray(text.encode())
      if kind == 1:
        data = data[: rng.integers(len(data))]
      else:
        for at in rng.integers(len(data), size=3):
          data[at] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
      read_manifest(path)
  path.write_text("[" * 100_000)
  with pytest.raises(ValueError, match="not a JSON list"):
    read_manifest(path)


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
  path = tmp_path / "m.jsonl"
  write_manifest(path, [ROW])
  before = path.read_bytes()
  with pytest.raises(TypeError):
    write_manifest(path, [ROW, {"id": object()}])
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_half_a_surrogate_pair_is_told_and_null_boxes_are_none(tmp_path):
  rows = [{**ROW, "id": "a", "answer": "\ud800"}, {**ROW, "boxes": None}]
  path = tmp_path / "m.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  good, refused = read_manifest_leniently(path)
  assert [text.partition(":")[0] for text in refused] == ["row 1"]
  assert "surrogate" in refused[0]
  assert "boxes" not in good[0].extra
