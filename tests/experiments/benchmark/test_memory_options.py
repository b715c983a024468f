"""Measured memory of the memory options."""

import jax
import pytest

from fusar_jax.config import preset
from fusar_jax.experiments.benchmark import bench, workload
from fusar_jax.experiments.benchmark.memory_options import StepBenchmark
from fusar_jax.experiments.benchmark.results import Results
from fusar_jax.model.fusar_gpt import init_params

SHAPE = workload.Shape(length=80, answer=8, side=3, rank=4)


@pytest.mark.slow
def test_int8_nearly_halves_the_tiny_models_arguments(
  capsys, tmp_path, monkeypatch
):
  """Two thirds of the parameters are layer kernels: 1 byte instead of 4."""
  name, path = "dtype.frozen-int8", tmp_path / "options.jsonl"
  with Results(path, {}) as results:
    bench.run_memory_options(results, "tiny", SHAPE, 1, [name])
    (row,) = results.of("option")
  shapes = jax.eval_shape(
    lambda: init_params(preset("tiny"), jax.random.key(0))
  )
  total = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert 0.4 * total < row["arguments"] < 0.65 * total
  assert row["temporaries"] > 0
  assert row["seconds"] > 0
  *_, last = capsys.readouterr().out.splitlines()
  start = f"| dtype.frozen int8 | {row['arguments'] / 1e9:.3f} |"
  assert last.startswith(start)
  # An existing result is not measured again, also under its old name.
  monkeypatch.setattr(StepBenchmark, "measure", None)
  path.write_text(path.read_text().replace('"option"', '"knob"'))
  with Results(path, {}) as results:
    bench.run_memory_options(results, "tiny", SHAPE, 1, [name])
  assert capsys.readouterr().out.splitlines()[-1] == last
