"""Benchmark of this implementation: the train step, `generate`, examples."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from fusar_jax.data.examples import Example, example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.experiments.benchmark import workload
from fusar_jax.experiments.benchmark.measurements import BATCH
from fusar_jax.geo.anchors import Anchors
from fusar_jax.hf.load import load_adapted
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.model.batch import Batch
from fusar_jax.model.compiling import compiler_options, fast_options
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.platforms import check_platforms
from fusar_jax.training import device_mesh
from fusar_jax.training.optimizer import make_optimizer
from fusar_jax.training.partition import partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_train_step
from fusar_jax.training.visual_cache import VisualCache, make_encoder


class Ours:
  """The model; each method call is one measured operation."""

  def __init__(self, folder: Path):
    check_platforms()  # As `train` and `load` do.
    _, self._shape, self._samples = workload.read(folder)
    self._config, self._params = load_adapted(
      folder / "base", folder / "adapter"
    )
    self._dtype = jnp.dtype(workload.read_dtype(folder))
    self._fast = fast_options(self._config, dtype=self._dtype)
    self._model = FusarGPT(self._config, dtype=self._dtype, **self._fast)
    self._files = workload.image_files(folder)
    self._stages = {}
    mesh = device_mesh.make_mesh(1, 1, 1, jax.devices()[:1])
    self._everywhere = NamedSharding(mesh, PartitionSpec())
    self._later_epoch = VisualCache(
      make_encoder(self._model, mesh), mesh, self._config.vision.merge
    )

  def train(self, stage: int, first_epoch: bool) -> float:
    """Runs one optimizer step on 4 samples; returns its loss.

    The vision tower is frozen in both stages: after the first epoch its tokens
    come from the cache, as in training (`training.visual_cache`).
    """
    if stage not in self._stages:
      self._stages = {}  # Only one stage is in memory.
      trainable, frozen = partition(self._params, workload.TRAINABLE[stage])
      optimizer = make_optimizer(lambda _: 1e-4)
      # Micro-batches of two: the head processes the answers of both at a time,
      # and memory stays below that of single samples in the reference.
      options = StepOptions(
        accumulation=BATCH // 2,
        dtype=self._dtype,
        dropout=False,
        **self._fast,
      )
      step = jax.jit(
        make_train_step(self._config, optimizer, options),
        donate_argnums=0,
        compiler_options=compiler_options(),
      )
      # The step takes its state's memory; decoding needs the initial values.
      trainable = jax.tree.map(
        lambda leaf: jnp.array(leaf, jnp.float32), trainable
      )
      # On the mesh from the start, or later steps would be compiled again.
      state, frozen = jax.device_put(
        (create_state(trainable, optimizer, seed=0), frozen), self._everywhere
      )
      self._stages[stage] = [step, state, frozen]
    step, state, frozen = self._stages[stage]
    # The time includes padding, patches and anchor weights on the host.
    batch = self._batch(BATCH, answers=True)
    if not first_epoch:
      if not self._later_epoch.programs():
        self._later_epoch(batch, frozen)  # The first epoch.
      batch = self._later_epoch(batch, frozen)
    state, metrics = step(state, frozen, batch)
    self._stages[stage][1] = state
    return float(metrics["loss"])

  def decode(self, count: int, tokens: int) -> list[list[int]]:
    """Decodes `tokens` tokens greedily for a batch of `count` samples."""
    self._stages = {}
    batch = self._batch(count, answers=False)
    return generate(self._model, self._params, batch, Decoding(tokens))

  def margin(self, answer: list[int], tokens: list[int]) -> float:
    """Returns the logit of tokens[0] minus that of tokens[1] after `answer`."""
    sample = workload.answered(self._samples[0], self._shape, answer)
    batch = make_batch(self._config, [sample], 0)
    logits = np.asarray(self._model.apply({"params": self._params}, batch))
    return float(logits[0, -1, tokens[0]] - logits[0, -1, tokens[1]])

  def prepare(self) -> int:
    """Reads all images from their files; returns the number of patches."""
    examples = [
      example_from_ids(
        sample.input_ids,
        [file],
        [Anchors(sample.features, sample.positions)],
        self._config,
      )
      for sample, file in zip(self._samples, self._files, strict=True)
    ]
    return sum(len(example.patches[0]) for example in examples)

  def device_peak(self) -> int:
    """Returns the peak of an accelerator's memory so far; 0 on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", 0)

  def _batch(self, count: int, answers: bool) -> Batch:
    samples = self._samples[:count]
    return make_batch(self._config, samples, self._shape.answer, answers)


def make_batch(
  config: FusarConfig,
  samples: list[workload.Sample],
  answer: int,
  answers: bool = True,
) -> Batch:
  """Returns samples as one batch.

  Args:
    config: of the model.
    samples: of equal shape.
    answer: answer tokens at the end of each sample.
    answers: whether to include the answers; False leaves the prompts.
  """

  def example(sample: workload.Sample) -> Example:
    ids = sample.input_ids
    prompt = len(ids) - answer
    return example_from_ids(
      ids if answers else ids[:prompt],
      [sample.image],
      [Anchors(sample.features, sample.positions)],
      config,
      answer_mask=np.arange(len(ids)) >= prompt if answers else None,
    )

  return pad_batch([example(sample) for sample in samples], config=config)
