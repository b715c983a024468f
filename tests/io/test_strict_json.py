"""Strict JSON: everything that is not JSON is one ValueError."""

import json
import random
import string

import pytest

from fusar_jax.io import strict_json


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "Expecting property name .* at character 2"),
    ('{"a": 1,\n"a" 2}', "at line 2, character 5"),
    ('{"a": 1, "a": 2}', "key 'a' occurs twice"),
    ('[{"b": {"a": 1, "a": 2}}]', "key 'a' occurs twice"),
    ("NaN", "NaN is not a number of JSON"),
    ("[-Infinity]", "-Infinity is not a number"),
    ("1e999", "number out of range: 1e999"),
    ("-1e999", "number out of range"),
    ("9" * 400, "number out of range: 400 digits"),
    ("9" * 9999, "number out of range: 9999 digits"),
    ("[" * 65 + "]" * 65, "nested too deeply: more than 64"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
  ],
)
def test_what_is_not_json_is_one_error(text, message):
  with pytest.raises(ValueError, match=message):
    strict_json.parse(text)


def test_json_is_read_as_by_python():
  value = {
    "a": [1, -2.5, 1e308, True, None, {"b": "[{" * 200, "c": 'say "[" \\'}],
    "": {"\u2028": []},
  }
  assert strict_json.parse(json.dumps(value)) == value
  deep = json.loads("[" * 64 + "]" * 64)
  assert strict_json.parse(json.dumps(deep)) == deep
  many = [[i, {"k": i}] for i in range(200)]
  assert strict_json.parse(json.dumps(many)) == many


def test_objects_of_files_name_the_file(tmp_path):
  path = tmp_path / "a.json"
  for content, message in (
    (b"[1]", "expected a JSON object, got list"),
    (b"{", "not valid JSON"),
    (b"\xff", "not UTF-8"),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: {message}"):
      strict_json.read_object(path)
  with pytest.raises(FileNotFoundError):
    strict_json.read_object(tmp_path / "none.json")


def test_rows_of_files_name_the_file_and_the_line(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'\xef\xbb\xbf{"a": "\xe2\x80\xa8"}\n\n{"b": 1}')
  assert list(strict_json.read_rows(path)) == [{"a": "\u2028"}, {"b": 1}]
  for content, message in (
    ("{}\n[1]", "expected a JSON object, got list"),
    ("{}\n{", "not JSON"),
    ('{}\n{"a": "\\ud800"}', "not JSON .*half of a surrogate pair"),
  ):
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 2: {message}"):
      list(strict_json.read_rows(path))


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ({}, "a.json: a field is missing or not of the expected type .*'size'"),
    ({"size": 1}, "not of the expected type .*int"),
    ({"size": ["x"]}, "a.json: could not convert"),
  ],
)
def test_errors_about_fields_name_the_file(content, message):
  with pytest.raises(ValueError, match=message), strict_json.reading("a.json"):
    float(content["size"][0])


def test_mutations_give_nothing_but_value_errors():
  rng = random.Random(0)
  whole = json.dumps({"id": "a", "boxes": [[1, 2.5, 3, 4]], "n": {"x": None}})
  for _ in range(3000):
    text = list(whole)
    for _ in range(rng.randint(1, 4)):
      at = rng.randrange(len(text))
      text[at : at + rng.randint(0, 2)] = rng.choices(string.printable, k=2)
    try:
      strict_json.parse("".join(text))
    except ValueError:
      continue
