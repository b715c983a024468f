"""Training curves from metrics.jsonl: values, scale, errors."""

import doctest
import json
import re

import pytest

from fusar_jax.report import curves


def write(folder, lines):
  folder.mkdir()
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "metrics.jsonl").write_text(text)
  return folder


def points(svg):
  (path,) = re.findall(r'stroke="currentColor" d="M([^"]+)"', svg)
  return [tuple(map(float, pair.split())) for pair in path.split("L")]


def test_losses_are_read(tmp_path):
  run = write(
    tmp_path / "stage1",
    [
      {"step": 10, "loss": 4.0, "grad_norm": 1.0},
      {"step": 20, "loss": 0.4},
      {"step": 20, "eval_loss": 0.5},
    ],
  )
  curve = curves.read_curve(run)
  assert curve == curves.Curve("stage1", ((10, 4.0), (20, 0.4)), ((20, 0.5),))
  assert curves.read_curves([run, tmp_path]) == [curve]
  svg = curves.figure(curve)
  # A factor of 10 spans the full height; half of the steps is the middle.
  assert points(svg) == [(175.0, 8.0), (316.0, 150.0)]
  assert svg.count("<circle") == 1
  assert "stage1: loss 4 to 0.4; rings, held out: 0.5 to 0.5" in svg


def test_noise_does_not_fill_the_figure(tmp_path):
  """Losses from 0.50 to 0.55 span less than a quarter of the height."""
  svg = curves.figure(curves.Curve("a<b", ((1, 0.5), (2, 0.55), (3, 0.52))))
  heights = [y for _, y in points(svg)]
  assert max(heights) - min(heights) < 142 / 4
  assert "a&lt;b" in svg


def test_a_loss_of_zero_is_drawn():
  assert (
    len(points(curves.figure(curves.Curve("x", ((1, 1.0), (2, 0.0)))))) == 2
  )
  assert curves.figure(curves.Curve("x", ())) == ""


def test_a_broken_line_is_named(tmp_path):
  run = write(tmp_path / "run", [{"step": 1, "loss": 2.0}])
  with (run / "metrics.jsonl").open("a") as file:
    file.write('{"step"')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
    curves.read_curve(run)


def test_the_example_of_ticks_is_true():
  found = doctest.testmod(curves)
  assert found.attempted
  assert not found.failed
