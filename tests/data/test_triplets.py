"""Manifests: the official layout, and every kind of invalid input."""

import contextlib
import json

import numpy as np
import pytest

from fusar_jax.data.triplets import (
  read_manifest,
  read_manifest_leniently,
  read_manifests,
  require_answers,
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


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_a_row_needs_an_image_and_a_question(tmp_path, name):
  """The id is then the row's number; null is as good as absent."""
  bare = {"image": "a.png", "question": "Where?"}
  write_manifest(tmp_path / name, [bare, bare | {"id": None, "answer": None}])
  rows = read_manifest(tmp_path / name)
  assert [(r.id, r.answer) for r in rows] == [("1", None), ("2", None)]
  with pytest.raises(ValueError, match=r"(?s)rows without 'answer'.*row 2 \("):
    require_answers(rows)
  require_answers([])
  other = tmp_path / "other.jsonl"
  write_manifest(other, [bare])
  with pytest.raises(ValueError, match="has the number of its row"):
    read_manifests(f"{tmp_path / name},{other}")


def test_a_number_that_is_an_id_already(tmp_path):
  rows = [ROW | {"id": 2}, {k: v for k, v in ROW.items() if k != "id"}]
  write_manifest(tmp_path / "m.jsonl", rows)
  with pytest.raises(ValueError, match='row 2: id "2" was used by row 1'):
    read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
  ("question", "read"),
  [
    ("<image>\nWhere?", "Where?"),
    ("Where? <image>", "Where?"),
    ("<image><image> Which of the two?", "Which of the two?"),
    (" Where?\n", " Where?\n"),
  ],
)
def test_the_mark_of_the_picture_is_cut(tmp_path, question, read):
  write_manifest(tmp_path / "m.jsonl", [ROW | {"question": question}])
  (triplet,) = read_manifest(tmp_path / "m.jsonl")
  assert triplet.question == read


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_files_as_windows_writes_them(tmp_path, name):
  """A byte order mark and CRLF; separators of lines inside of strings."""
  row = ROW | {"question": "target\u2019s\u2028a\x85b\u2029c"}
  lines = [json.dumps(row | {"id": i}, ensure_ascii=False) for i in "ab"]
  text = "\r\n".join(lines) + "\r\n"
  if name == "m.json":
    text = "[\r\n" + ",\r\n".join(lines) + "\r\n]\r\n"
  (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
  rows = read_manifest(tmp_path / name)
  assert [(r.id, r.question) for r in rows] == [
    ("a", row["question"]),
    ("b", row["question"]),
  ]


def test_the_official_examples(shared):
  """Files with CRLF; with and without anchors; every answer."""
  folder = shared / "data/official_fusar_examples"
  for name, anchors in (("detection", True), ("detection_no_aef", False)):
    rows = read_manifest(folder / f"{name}.jsonl")
    assert [row.id for row in rows] == [f"demo-{i:02}" for i in range(1, 13)]
    assert {row.coordinate_size for row in rows} == {(504, 504)}
    assert {row.anchors[0] is not None for row in rows} == {anchors}
    require_answers(rows)


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
  with pytest.raises(ValueError, match="rejected rows") as caught:
    read_manifest(tmp_path / "m.jsonl")
  message = str(caught.value)
  assert "row 2: missing 'question'" in message
  assert "row 3: 1 images but 2 'aef' files" in message
  assert "row 4: 'coordinate_size'" in message
  assert 'row 5: id "a" was used by row 1 already' in message
  assert "row 6: expected an object, got list" in message
  assert "row 7: 'boxes'" in message
  assert "row 8: 'image' names no file" in message
  assert "row 9: not JSON" in message
  assert "row 1:" not in message
  good, rejected = read_manifest_leniently(tmp_path / "m.jsonl")
  assert [t.id for t in good] == ["a"]
  assert len(rejected) == 8


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
  good, rejected = read_manifest_leniently(path)
  assert [text.partition(":")[0] for text in rejected] == ["row 1"]
  assert "surrogate" in rejected[0]
  assert "boxes" not in good[0].extra
