"""What demo and study share: simulated scenes, and training recipes for them.

In the folder of an experiment, data/{train,unseen}/ holds the scenes.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fusar_jax.experiments.jobs import Job
from fusar_jax.training.recipes import Recipe

# Padding buckets for rows of one scene of 168 pixels (`data.pack_by_image`), in
# tokens of the tiny base: all of them; and the answers alone. Each bucket is
# compiled separately, which takes as long as about fifteen steps on 2 cores, so
# short runs are faster with the longest bucket alone.
LENGTHS = (128, 160, 176, 208, 256, 304, 352)
ANSWERS = (128,)
# The shortest bucket that fits the captions, or the rows of the tasks.
LONGEST = {"captions": (176,), "tasks": (352,)}


@dataclasses.dataclass(frozen=True)
class Plan:
  """Sizes of an experiment; the defaults take minutes on 2 cores.

  Attributes:
    scenes, unseen: numbers of simulated scenes for training and for testing.
    side: pixels per side of an image, a multiple of 28.
    stage1_steps, stage2_steps: train steps of `batch_size` rows; a row has the
      questions of one scene, or as many as fit.
    learning_rate: of all stages; three times that of the configs, which assume
      more steps.
    batch_size: rows per step.
    max_new_tokens: maximum length of an answer.
    answered_at_once: batch size of prediction.
  """

  scenes: int = 420
  unseen: int = 300
  side: int = 168
  stage1_steps: int = 50
  stage2_steps: int = 110
  learning_rate: float = 3e-3
  batch_size: int = 8
  max_new_tokens: int = 96
  answered_at_once: int = 64

  def prediction_options(self) -> tuple:
    """Returns arguments of `predict`."""
    return (
      *("--max-new-tokens", self.max_new_tokens),
      *("--batch-size", self.answered_at_once),
    )

  def recipe(
    self,
    config: str,
    workdir: Path,
    init: str | Path,
    train: Path,
    steps: int,
    buckets: tuple[int, ...] = LENGTHS,
    values: Mapping[str, Any] | None = None,
  ) -> Recipe:
    """Returns a training run.

    Args:
      config: name of the config, "stage1".
      workdir: of the run.
      init: base of the run.
      train: manifest.
      steps: number of train steps.
      buckets: padding buckets.
      values: further config fields.
    """
    return Recipe(
      config,
      {
        "init": str(init),
        "model.image_size": (self.side, self.side),
        "data.train": str(train),
        "data.buckets": buckets,
        "data.answer_buckets": ANSWERS,
        "data.pack_length": LENGTHS[-1],
        "data.pack_by_image": True,
        "batch_size": self.batch_size,
        "steps": steps,
        "optimizer.learning_rate": self.learning_rate,
        **(values or {}),
      },
      workdir,
    )


def manifest(out: Path, part: str, rows: str) -> Path:
  """Returns the manifest of captions, tasks or both ("manifest")."""
  return out / "data" / part / f"{rows}.jsonl"


def simulation_jobs(
  main: Callable, out: Path, plan: Plan, options: tuple = ()
) -> list[Job]:
  """Returns the jobs "simulate train" and "simulate unseen".

  Args:
    main: of `simulate`.
    out: folder of the experiment.
    plan: sizes.
    options: further arguments of `simulate`.
  """
  jobs = []
  for seed, (part, scenes) in enumerate(
    (("train", plan.scenes), ("unseen", plan.unseen)), start=1
  ):
    folder = out / "data" / part
    command = (
      "simulate",
      *("--out", folder, "--scenes", scenes, "--seed", seed),
      *("--size", plan.side, *options),
    )
    jobs.append(
      Job(
        f"simulate {part}",
        main=main,
        command=command,
        outputs=(folder / "dataset.json",),
        kind="scenes",
        units=scenes,
      )
    )
  return jobs


def training_job(name: str, recipe: Recipe, needs: tuple[str, ...]) -> Job:
  """Returns the job of a training run."""
  return Job(
    name,
    run=recipe.train,
    command=("train", *recipe.arguments()),
    finished=recipe.finished,
    needs=needs,
    kind="steps",
    units=recipe.values["steps"],
  )
