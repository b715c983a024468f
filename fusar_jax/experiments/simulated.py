"""What demo and study share: simulated scenes, and training recipes for them.

In the folder of an experiment, data/{train,unseen}/ holds the scenes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.experiments.jobs import Job
from fusar_jax.experiments.plan import Plan
from fusar_jax.training.recipes import Recipe

# Padding buckets for rows of one scene of 168 pixels (`data.pack_by_image`), in
# tokens of the tiny base: all of them; and the answers alone. Each bucket is
# compiled separately, which takes as long as about fifteen steps on 2 cores, so
# short runs are faster with the longest bucket alone.
LENGTHS = (128, 160, 176, 208, 256, 304, 352)
ANSWERS = (128,)
# The shortest bucket that fits the captions, or the rows of the tasks.
LONGEST = {"captions": (176,), "tasks": (352,)}


def make_recipe(
  plan: Plan,
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
    plan: sizes.
    config: name of the config, "stage1".
    workdir: of the run.
    init: base of the run.
    train: manifest.
    steps: number of train steps.
    buckets: padding buckets.
    values: further config fields.
  """
  # Stage 2 trains no TLM, and a rule that matches nothing is an error.
  rates = {}
  if config == "stage1" and plan.tlm_rate != 1:
    rates = {"optimizer.rates": (("tlm/.*", plan.tlm_rate), (".*", 1.0))}
  return Recipe(
    config,
    {
      "init": str(init),
      "model.image_size": (plan.side, plan.side),
      "data.train": str(train),
      "data.buckets": buckets,
      "data.answer_buckets": ANSWERS,
      "data.pack_length": LENGTHS[-1],
      "data.pack_by_image": True,
      "batch_size": plan.batch_size,
      "steps": steps,
      "optimizer.learning_rate": plan.learning_rate,
      "seed": plan.seed,
      **rates,
      **(values or {}),
    },
    workdir,
  )


def manifest(out: Path, part: str, rows: str) -> Path:
  """Returns the manifest of captions, tasks or both ("manifest")."""
  return out / "data" / part / f"{rows}.jsonl"


def simulation_jobs(out: Path, plan: Plan, options: tuple = ()) -> list[Job]:
  """Returns the jobs "simulate train" and "simulate unseen".

  Args:
    out: folder of the experiment.
    plan: sizes.
    options: further arguments of `simulate`.
  """
  jobs = []
  for part, scenes, seed in (
    ("train", plan.scenes, 1),
    ("unseen", plan.unseen, plan.unseen_seed),
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
