"""Sizes of the experiments on simulated scenes: `demo` and `study`.

Imports no JAX, so `--help` shows the defaults without waiting for it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Plan:
  """Sizes of an experiment; the defaults take minutes on 2 cores.

  Attributes:
    scenes, unseen: numbers of simulated scenes for training and for testing.
    side: pixels per side of an image, a multiple of 28.
    stage1_steps, stage2_steps: train steps of `batch_size` rows; a row has the
      questions of one scene, or as many as fit.
    learning_rate: of all stages.
    tlm_rate: factor on it for the TLM.
    batch_size: rows per step.
    seed: of training: new parameters, order of rows, dropout.
    unseen_seed: of the scenes for testing; those for training have 1.
    max_new_tokens: maximum length of an answer.
    answered_at_once: batch size of prediction.
  """

  scenes: int = 420
  unseen: int = 300
  side: int = 168
  stage1_steps: int = 50
  stage2_steps: int = 110
  learning_rate: float = 1e-3
  tlm_rate: float = 1.0
  batch_size: int = 8
  seed: int = 42
  unseen_seed: int = 2
  max_new_tokens: int = 96
  answered_at_once: int = 64

  def prediction_options(self) -> tuple:
    """Returns arguments of `predict`."""
    return (
      *("--max-new-tokens", self.max_new_tokens),
      *("--batch-size", self.answered_at_once),
    )
