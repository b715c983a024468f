"""The jobs and tables of `study`; see `fusar_jax.study` for its design."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from fusar_jax.data.triplets import write_text
from fusar_jax.experiments.jobs import Job, run_jobs
from fusar_jax.experiments.plan import Plan
from fusar_jax.experiments.simulated import (
  make_recipe,
  manifest,
  simulation_jobs,
  training_job,
)
from fusar_jax.experiments.variants import (
  CONDITIONS,
  GRID_POINTS,
  GROUPS,
  STANDARD,
  TESTED,
  TESTED_TITLE,
  Variant,
)
from fusar_jax.hf.folders import TINY_BASE
from fusar_jax.inference.controls import predict_controls
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import FINISHED, predict
from fusar_jax.io.strict_json import read_object
from fusar_jax.report.comparisons import write_json
from fusar_jax.report.scoring import (
  read_rows,
  read_samples,
  score_rows,
  write_scores,
)
from fusar_jax.report.study_table import StudyTable, tabulate
from fusar_jax.simulation.dataset import VERSION
from fusar_jax.training import provenance
from fusar_jax.training.recipes import Recipe
from fusar_jax.training.resume_config import check_resume_config

_SETTINGS = "plan.json"
_ROWS = ("captions", "tasks")
# The last file written to a folder of answers.
_SCORED = "metrics.json"


def run(
  out: str | Path,
  plan: Plan,
  seeds: Mapping[str, int],
  init: str | Path = TINY_BASE,
) -> dict[str, StudyTable]:
  """Runs the unfinished jobs of a study; writes and returns tables by group.

  Args:
    out: folder; an unfinished study continues.
    plan: sizes of all runs.
    seeds: {group: number of seeds}, for names in GROUPS and TESTED.
    init: a Hugging Face folder or a run, without LoRA and TLM.

  Raises:
    FileNotFoundError: no base, or no configs next to the package.
    RuntimeError: a run was asked to stop; the same call continues it.
    ValueError, OSError: as `train_and_evaluate` and `predict`; or the folder
      contains a study with other settings.
  """
  study = Study(Path(out), plan, str(init))
  study.check()
  run_jobs(list(study.jobs(seeds)), study.out, write=Console().rule)
  tables = {name: _table(study, name, count) for name, count in seeds.items()}
  write_json(
    study.out / "study.json",
    {
      **study.describe(),
      "tables": {name: table.to_json() for name, table in tables.items()},
    },
  )
  parts = [_preface(study), *(table.to_markdown() for table in tables.values())]
  write_text(study.out / "study.md", "\n\n".join(parts) + "\n")
  return tables


@dataclasses.dataclass(frozen=True)
class Study:
  """The jobs and results of a study.

  Attributes:
    out: its folder.
    plan: sizes of all runs.
    init: base of all runs.
  """

  out: Path
  plan: Plan
  init: str

  def check(self) -> None:
    """Raises at once for settings that would fail, or mix, hours later."""
    source = provenance.describe(self.init, self.out)
    check_resume_config(
      self.out / _SETTINGS,
      {
        **dataclasses.asdict(self.plan),
        "init": self.init,
        "init_sha256": source.sha256,
        # Scenes of an earlier version shared footprints across the splits.
        "simulation": VERSION,
      },
    )

  def jobs(self, seeds: Mapping[str, int]) -> Iterator[Job]:
    """Yields all jobs by seed: an interrupted study has complete seeds."""
    # A smaller grid of anchors is a subset of the largest one.
    grid = ("--anchors", GRID_POINTS)
    yield from simulation_jobs(self.out, self.plan, grid)
    for seed in range(1, max(seeds.values()) + 1):
      wanted = [name for name, count in seeds.items() if seed <= count]
      variants = {STANDARD.name: STANDARD}
      for name in wanted:
        if name != TESTED:
          variants |= {v.name: v for v in GROUPS[name].variants.values()}
      for variant in variants.values():
        yield from self._variant_jobs(variant, seed)
      if TESTED in wanted:
        for rows in _ROWS:
          yield self._tested_job(seed, rows)

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

  def finished_seeds(self, variant: Variant) -> int:
    """Returns the number of seeds, from 1 on, whose answers are scored."""
    seeds = 0
    while all(
      (
        self._answers(variant, seeds + 1, rows) / variant.condition / _SCORED
      ).is_file()
      for rows in _ROWS
    ):
      seeds += 1
    return seeds

  def describe(self) -> dict:
    """Returns the plan, the hash of the base and those of the datasets."""
    cards = {part: self.out / "data" / part for part in ("train", "unseen")}
    return {
      "study": read_object(self.out / _SETTINGS),
      "sha256": {
        part: read_object(folder / "dataset.json")["sha256"]
        for part, folder in cards.items()
      },
    }

  def _variant_jobs(self, variant: Variant, seed: int) -> Iterator[Job]:
    title, needs = f"{variant.name}, seed {seed}", ("simulate train",)
    for stage, recipe in self._recipes(variant, seed).items():
      yield training_job(f"{title}: {stage}", recipe, needs)
      needs = (f"{title}: {stage}",)
    for rows in _ROWS:
      model = self._model(variant, seed, rows)
      folder = self._answers(variant, seed, rows) / variant.condition
      data = manifest(self.out, "unseen", rows)
      yield Job(
        f"{title}: answers, {rows}",
        run=functools.partial(_answer, self.plan, model, data, folder),
        command=(
          *("predict", "--model", model, "--data", data, "--out", folder),
          *self.plan.prediction_options(),
        ),
        outputs=(folder / _SCORED,),
        needs=("simulate unseen", f"{title}: {model.name}"),
        kind=rows,
        units=self.plan.unseen,
      )

  def _tested_job(self, seed: int, rows: str) -> Job:
    model = self._model(STANDARD, seed, rows)
    folder = self._answers(STANDARD, seed, rows)
    data = manifest(self.out, "unseen", rows)
    title = f"{STANDARD.name}, seed {seed}"
    return Job(
      f"{title}: {rows} under every condition",
      run=functools.partial(_answer_controls, self.plan, model, data, folder),
      command=(
        *("evaluate", "--controls", "--model", model, "--manifest", data),
        *("--out", folder, *self.plan.prediction_options()),
      ),
      outputs=tuple(folder / name / _SCORED for name in CONDITIONS),
      needs=("simulate unseen", f"{title}: {model.name}"),
      kind=rows,
      # `evaluate --controls` has one condition more; "aligned" is there.
      units=self.plan.unseen * len(CONDITIONS),
    )

  def _recipes(self, variant: Variant, seed: int) -> dict[str, Recipe]:
    """Returns {stage: its recipe}, in the order of training."""
    plan, folder = self.plan, self._folder(variant, seed)
    if variant.two_stages:
      stages = {
        "stage1": ("stage1", self.init, "captions", plan.stage1_steps),
        "stage2": ("stage2", folder / "stage1", "tasks", plan.stage2_steps),
      }
    else:
      steps = plan.stage1_steps + plan.stage2_steps
      stages = {"stage": ("stage1", self.init, "manifest", steps)}
    return {
      stage: make_recipe(
        plan,
        config,
        folder / stage,
        init,
        manifest(self.out, "train", rows),
        steps,
        values={"seed": seed, **variant.values},
      )
      for stage, (config, init, rows, steps) in stages.items()
    }

  def _folder(self, variant: Variant, seed: int) -> Path:
    return self.out / "runs" / variant.name / f"seed{seed}"

  def _model(self, variant: Variant, seed: int, rows: str) -> Path:
    """Returns the workdir of the run that predicts these rows."""
    stage = "stage"
    if variant.two_stages:
      stage = {"captions": "stage1", "tasks": "stage2"}[rows]
    return self._folder(variant, seed) / stage

  def _answers(self, variant: Variant, seed: int, rows: str) -> Path:
    return self._folder(variant, seed) / "answers" / rows


def _options(plan: Plan) -> PredictionOptions:
  return PredictionOptions(
    batch_size=plan.answered_at_once, max_new_tokens=plan.max_new_tokens
  )


def _answer(plan: Plan, model: Path, data: Path, folder: Path) -> None:
  if not (folder / FINISHED).is_file():
    predict(
      model,
      data,
      folder,
      _options(plan),
    )
  _score(folder)


def _answer_controls(plan: Plan, model: Path, data: Path, folder: Path) -> None:
  answers = predict_controls(
    model,
    data,
    folder,
    _options(plan),
  )
  for path in answers.values():
    _score(path.parent)


def _score(folder: Path) -> None:
  write_scores(folder, *score_rows(read_rows(folder / FINISHED)[0]))


def _table(study: Study, name: str, count: int) -> StudyTable:
  seeds = range(1, count + 1)
  if name == TESTED:
    answers = {
      condition: [study.samples(STANDARD, seed, condition) for seed in seeds]
      for condition in CONDITIONS
    }
    return tabulate(TESTED_TITLE, STANDARD.condition, answers)
  group = GROUPS[name]
  answers = {
    label: [study.samples(variant, seed) for seed in seeds]
    for label, variant in group.variants.items()
  }
  if not group.headline:
    # All seeds of the standard: their spread judges the differences.
    every = range(1, study.finished_seeds(STANDARD) + 1)
    standard = [study.samples(STANDARD, seed) for seed in every]
    answers[group.standard] = standard
  return tabulate(group.title, group.standard, answers, group.headline)


def _preface(study: Study) -> str:
  plan = study.plan
  return (
    "# What the anchors contribute\n\n"
    "In simulated scenes radar is ambiguous about land cover by construction,"
    " so anchors can resolve it; how much radar leaves open in real images is"
    " another question.\n\n"
    f"Every run: from {study.init}, {plan.scenes} simulated scenes of"
    f" {plan.side} x {plan.side} pixels, stage 1 of {plan.stage1_steps} and"
    f" stage 2 of {plan.stage2_steps} steps of {plan.batch_size} examples at a"
    f" learning rate of {plan.learning_rate:g} (TLM: {plan.tlm_rate:g} times"
    f" that); {plan.unseen} unseen scenes."
    " Captions are answered by stage 1, tasks by stage 2."
  )
