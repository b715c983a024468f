"""Runs a study, from simulation to scores, in resumable jobs.

Every variant and seed trains from the same base on the same scenes. Stage 1
predicts captions of the same unseen scenes, stage 2 predicts tasks. Finished
jobs are skipped, interrupted jobs resume. Variants that several groups share
are trained once. The folder:

  plan.json                                       settings of all runs
  data/{train,unseen}/                            scenes
  runs/VARIANT/seedK/{stage1,stage2,stage}/       workdirs of `train`
  runs/VARIANT/seedK/answers/{captions,tasks}/CONDITION/   answers and scores
  compiled/                                       shared compilation cache
"""

import dataclasses
import functools
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.experiments import buckets
from fusar_jax.experiments.eta import EtaEstimator
from fusar_jax.experiments.variants import (
  GROUPS,
  NODES,
  STANDARD,
  TESTED,
  Variant,
)
from fusar_jax.inference.controls import predict_controls
from fusar_jax.inference.prediction import FINISHED, predict
from fusar_jax.report.scoring import (
  read_rows,
  read_samples,
  score_rows,
  write_scores,
)
from fusar_jax.simulation import dataset
from fusar_jax.training import provenance
from fusar_jax.training.compile_cache import compile_cache
from fusar_jax.training.recipes import Recipe
from fusar_jax.training.resume_config import check_resume_config

_ROWS = ("captions", "tasks")
# The last file written to a folder of answers.
_SCORED = "metrics.json"


@dataclasses.dataclass(frozen=True)
class Plan:
  """Settings of all runs.

  Attributes:
    scenes, unseen: numbers of simulated scenes for training and for testing.
    side: pixels per side of an image, a multiple of 28.
    stage1_steps, stage2_steps: train steps of `batch_size` examples.
    learning_rate: of all stages; three times that of the configs, which assume
      more steps.
    batch_size: examples per step.
    max_new_tokens: maximum length of an answer.
    answered_at_once: batch size of prediction.
    init: a Hugging Face folder or a run, without LoRA and TLM.
  """

  scenes: int = 2000
  unseen: int = 300
  side: int = 168
  stage1_steps: int = 80
  stage2_steps: int = 120
  learning_rate: float = 3e-3
  batch_size: int = 16
  max_new_tokens: int = 96
  answered_at_once: int = 64
  init: str = "tiny-base"


@dataclasses.dataclass(frozen=True, eq=False)
class _Job:
  """One job; `units` of the same kind take about the same time."""

  title: str
  kind: str
  units: int
  command: tuple[str, Sequence]
  finished: Callable[[], bool]
  run: Callable[[], None]


class Study:
  """Variants and seeds of some groups under one plan.

  Args:
    out: folder; an unfinished study continues.
    plan: settings of all runs.
    seeds: {group: number of seeds}, for names in GROUPS and TESTED.
    workers: number of simulation processes.
  """

  def __init__(
    self,
    out: str | Path,
    plan: Plan,
    seeds: Mapping[str, int],
    workers: int = 1,
  ):
    self._out, self._plan, self._seeds = Path(out), plan, seeds
    self._workers = workers
    self._console = Console()

  def run(self) -> None:
    """Runs all unfinished jobs.

    Raises:
      FileNotFoundError: no base, or no configs next to the package.
      RuntimeError: a run was asked to stop; the same call continues it.
      ValueError, OSError: as `train_and_evaluate` and `predict`; or the folder
        contains a study with other settings.
    """
    self._begin()
    # Dozens of runs share a few programs: each is compiled once.
    with compile_cache(self._out / "compiled"):
      self._work()

  def _work(self) -> None:
    self._simulate()
    jobs = list(self._jobs())
    waiting = [job for job in jobs if not job.finished()]
    pace, began = EtaEstimator(), time.monotonic()
    done = len(jobs) - len(waiting)
    for k, job in enumerate(waiting):
      left = pace.left((j.kind, j.units) for j in waiting[k:])
      told = f"{_clock(time.monotonic() - began)} elapsed"
      told += f", about {_clock(left)} left" if left is not None else ""
      self._console.rule(
        f"{done + k + 1}/{len(jobs)} {job.title} [dim]({told})[/dim]"
      )
      _show(*job.command)
      with pace.timed(job.kind, job.units):
        job.run()

  def samples(
    self, variant: Variant, seed: int, condition: str | None = None
  ) -> list[dict]:
    """Returns the scored answers of a variant to captions and tasks.

    Args:
      variant: the trained variant.
      seed: of its training.
      condition: of the anchors in testing (default: that of training).
    """
    return [
      sample
      for rows in _ROWS
      for sample in read_samples(
        self._answers(variant, seed, rows) / (condition or variant.condition)
      )
    ]

  def describe(self) -> dict:
    """Returns the plan, the hash of the base and those of the datasets."""
    return {
      "study": provenance.read_json(self._out / "plan.json"),
      "sha256": {
        part: provenance.read_json(self._data(part) / "dataset.json")["sha256"]
        for part in ("train", "unseen")
      },
    }

  def _begin(self) -> None:
    """Raises at once for settings that would fail, or mix, hours later."""
    source = provenance.describe(self._plan.init, self._out)
    now = dataclasses.asdict(self._plan) | {"init_sha256": source.sha256}
    check_resume_config(self._out / "plan.json", now)

  def _simulate(self) -> None:
    for seed, (part, scenes) in enumerate(
      (("train", self._plan.scenes), ("unseen", self._plan.unseen)), start=1
    ):
      folder = self._data(part)
      if (folder / "dataset.json").is_file():
        continue
      plan = dataset.Plan(
        scenes=scenes, seed=seed, size=self._plan.side, anchors=NODES
      )
      self._console.rule(f"{scenes} scenes: {part}")
      _show(
        "simulate",
        *("--out", folder, "--scenes", scenes, "--seed", seed),
        *("--size", plan.size, "--anchors", plan.anchors),
      )
      with Progress(console=self._console, transient=True) as progress:
        bar = progress.add_task("scenes", total=scenes)
        dataset.simulate(
          folder,
          plan,
          workers=self._workers,
          on_scene=lambda progress=progress, bar=bar: progress.advance(bar),
        )

  def _jobs(self) -> Iterator[_Job]:
    """Yields all jobs by seed: an interrupted study has complete seeds."""
    for seed in range(1, max(self._seeds.values()) + 1):
      wanted = [name for name, count in self._seeds.items() if seed <= count]
      variants = {STANDARD.name: STANDARD}
      for name in wanted:
        if name != TESTED:
          variants |= {v.name: v for v in GROUPS[name].variants.values()}
      for variant in variants.values():
        yield from self._variant_jobs(variant, seed)
      if TESTED in wanted:
        for rows in _ROWS:
          yield self._tested_job(seed, rows)

  def _variant_jobs(self, variant: Variant, seed: int) -> Iterator[_Job]:
    title = f"{variant.name}, seed {seed}"
    for stage, recipe in self._recipes(variant, seed).items():
      yield _Job(
        f"{title}: {stage}",
        "steps",
        recipe.values["steps"],
        ("train", *recipe.arguments()),
        recipe.finished,
        recipe.train,
      )
    for rows in _ROWS:
      model = self._model(variant, seed, rows)
      folder = self._answers(variant, seed, rows) / variant.condition
      arguments = (
        *("--model", model, "--data", self._data("unseen") / f"{rows}.jsonl"),
        *("--out", folder, *self._limits()),
      )
      yield _Job(
        f"{title}: answers, {rows}",
        rows,
        self._plan.unseen,
        ("predict", *arguments),
        (folder / _SCORED).is_file,
        functools.partial(self._answer, model, rows, folder),
      )

  def _tested_job(self, seed: int, rows: str) -> _Job:
    model = self._model(STANDARD, seed, rows)
    folder = self._answers(STANDARD, seed, rows)
    arguments = (
      *("--controls", "--model", model),
      *("--manifest", self._data("unseen") / f"{rows}.jsonl"),
      *("--out", folder, *self._limits()),
    )
    files = [folder / name / _SCORED for name in CONDITIONS]
    return _Job(
      f"{STANDARD.name}, seed {seed}: {rows} under every condition",
      rows,
      self._plan.unseen * (len(CONDITIONS) - 1),
      ("evaluate", *arguments),
      lambda: all(file.is_file() for file in files),
      functools.partial(self._answer_controls, model, rows, folder),
    )

  def _recipes(self, variant: Variant, seed: int) -> dict[str, Recipe]:
    """Returns {stage: its recipe}, in the order of training."""
    plan, folder = self._plan, self._folder(variant, seed)
    if variant.two_stages:
      stages = {
        "stage1": ("stage1", plan.init, "captions", plan.stage1_steps),
        "stage2": ("stage2", folder / "stage1", "tasks", plan.stage2_steps),
      }
    else:
      steps = plan.stage1_steps + plan.stage2_steps
      stages = {"stage": ("stage1", plan.init, "manifest", steps)}
    return {
      stage: Recipe(
        config,
        {
          "init": str(init),
          "seed": seed,
          "model.image_size": (plan.side, plan.side),
          "data.train": str(self._data("train") / f"{rows}.jsonl"),
          "data.buckets": buckets.LENGTHS,
          "data.answer_buckets": buckets.ANSWERS,
          "batch_size": plan.batch_size,
          "steps": steps,
          "optimizer.learning_rate": plan.learning_rate,
          **variant.values,
        },
        folder / stage,
      )
      for stage, (config, init, rows, steps) in stages.items()
    }

  def _answer(self, model: Path, rows: str, folder: Path) -> None:
    if not (folder / FINISHED).is_file():
      predict(
        model,
        self._data("unseen") / f"{rows}.jsonl",
        folder,
        batch_size=self._plan.answered_at_once,
        max_new_tokens=self._plan.max_new_tokens,
      )
    _score(folder)

  def _answer_controls(self, model: Path, rows: str, folder: Path) -> None:
    answers = predict_controls(
      model,
      self._data("unseen") / f"{rows}.jsonl",
      folder,
      batch_size=self._plan.answered_at_once,
      max_new_tokens=self._plan.max_new_tokens,
    )
    for path in answers.values():
      _score(path.parent)

  def _limits(self) -> tuple:
    """Returns common arguments of `predict` and `evaluate`."""
    return (
      *("--max-new-tokens", self._plan.max_new_tokens),
      *("--batch-size", self._plan.answered_at_once),
    )

  def _data(self, part: str) -> Path:
    return self._out / "data" / part

  def _folder(self, variant: Variant, seed: int) -> Path:
    return self._out / "runs" / variant.name / f"seed{seed}"

  def _model(self, variant: Variant, seed: int, rows: str) -> Path:
    """Returns the workdir of the run that predicts these rows."""
    stage = "stage"
    if variant.two_stages:
      stage = {"captions": "stage1", "tasks": "stage2"}[rows]
    return self._folder(variant, seed) / stage

  def _answers(self, variant: Variant, seed: int, rows: str) -> Path:
    return self._folder(variant, seed) / "answers" / rows


def _score(folder: Path) -> None:
  write_scores(folder, *score_rows(read_rows(folder / FINISHED)[0]))


def _show(name: str, *arguments) -> None:
  """Prints the equivalent command."""
  words = shlex.join(map(str, arguments))
  print(f"$ python -m fusar_jax.{name} {words}", flush=True)


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
