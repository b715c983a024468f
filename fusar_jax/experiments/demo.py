"""The jobs of `demo`, its report and its summary; see `fusar_jax.demo`."""

import dataclasses
import functools
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from fusar_jax.experiments import simulated
from fusar_jax.experiments.jobs import Job, run_jobs
from fusar_jax.experiments.plan import Plan
from fusar_jax.experiments.simulated import manifest
from fusar_jax.hf.folders import RECORD, TINY_BASE
from fusar_jax.inference.prediction import FINISHED
from fusar_jax.io.strict_json import read_object
from fusar_jax.metrics import pairing
from fusar_jax.report import lineage
from fusar_jax.report.answers import Answer, read_answers
from fusar_jax.report.baselines import BASELINES, Tested
from fusar_jax.report.curves import read_curves
from fusar_jax.report.evaluation import REPORT
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import read_scores
from fusar_jax.report.scoring import read_rows, read_samples
from fusar_jax.training import provenance
from fusar_jax.training.resume_config import check_resume_config

_SETTINGS = "demo.json"
# From this number of steps on, compiling several sequence lengths pays off.
_MANY_STEPS = 200
# Manifest (and folder of scores) -> stage that predicts it.
_STAGES = {"captions": "stage1", "tasks": "stage2"}
_BASE = "base"
# (task, score) -> its line of the summary.
_COMPARED = {
  ("captioning", "accuracy"): "caption fields",
  ("counting", "accuracy"): "counting",
  ("grounding", "acc@100"): "grounding",
  ("classification", "accuracy"): "classification",
  ("detection", "f1@0.25"): "detection",
}

LONG = Plan(scenes=4000, stage1_steps=300, stage2_steps=1600)


def run(
  out: str | Path, plan: Plan, base: str | Path = TINY_BASE
) -> dict[str, dict]:
  """Runs the demo; returns the metrics of each folder of scores.

  Args:
    out: folder of the demo; an unfinished demo continues.
    plan: sizes of the demo.
    base: a Hugging Face folder or a run, without LoRA and TLM.

  Raises:
    FileNotFoundError: no base, or no configs: the configs are in the repository
      next to the package and are not installed with it.
    RuntimeError: a step failed; the step has printed the reason.
    ValueError, OSError: as `train_and_evaluate`; or `out` contains a demo with
      other settings.
  """
  out, base, began = Path(out), str(base), time.monotonic()
  # Fails at once for settings that would fail minutes later.
  source = provenance.describe(base, out)
  check_resume_config(
    out / _SETTINGS,
    {
      **dataclasses.asdict(plan),
      "base": base,
      "base_sha256": source.sha256,
    },
  )
  run_jobs(jobs(out, plan, base), out, write=Console().rule)
  metrics = _metrics(out)
  _print_summary(out, plan)
  print(f"demo: done in {time.monotonic() - began:.0f} s")
  return metrics


def jobs(out: Path, plan: Plan, base: str) -> list[Job]:
  """Returns the jobs of the demo in order."""
  return [
    *simulated.simulation_jobs(out, plan),
    _training(out, plan, "stage1", base, "captions", plan.stage1_steps),
    _training(out, plan, "stage2", out / "stage1", "tasks", plan.stage2_steps),
    _prediction(out, plan, _BASE, base, "manifest", in_background=True),
    *(
      _prediction(out, plan, rows, out / stage, rows)
      for rows, stage in _STAGES.items()
    ),
    *(_scoring(out, name, name) for name in _STAGES),
    _scoring(out, _BASE, "manifest"),
    _export(out, "adapter", ("--adapter-only", "--base-name", base)),
    _export(out, "merged", ()),
    Job("report", run=functools.partial(_report, out, plan)),
  ]


def _training(
  out: Path, plan: Plan, stage: str, init: str | Path, rows: str, steps: int
) -> Job:
  many = steps >= _MANY_STEPS
  recipe = simulated.make_recipe(
    plan,
    stage,
    out / stage,
    init,
    manifest(out, "train", rows),
    steps,
    buckets=simulated.LENGTHS if many else simulated.LONGEST[rows],
    values={"log_every_steps": 5},
  )
  before = {"stage1": "simulate train", "stage2": "train stage1"}[stage]
  return simulated.training_job(f"train {stage}", recipe, (before,))


def _prediction(
  out: Path,
  plan: Plan,
  name: str,
  model: str | Path,
  rows: str,
  in_background: bool = False,
) -> Job:
  file = _predictions(out, name)
  command = (
    "predict",
    *("--model", model, "--data", manifest(out, "unseen", rows)),
    *("--out", file.parent, *plan.prediction_options()),
  )
  trained = () if name == _BASE else (f"train {_STAGES[rows]}",)
  return Job(
    f"predict {name}",
    command=command,
    outputs=(file,),
    needs=("simulate unseen", *trained),
    kind=rows,
    units=plan.unseen,
    log=file.parent / "predict.log" if in_background else None,
  )


def _scoring(out: Path, name: str, rows: str) -> Job:
  folder = out / "scores" / name
  return Job(
    f"score {name}",
    command=(
      *("evaluate", "--predictions", _predictions(out, name), "--baselines"),
      *("--manifest", manifest(out, "unseen", rows)),
      *("--train", manifest(out, "train", rows), "--out", folder),
    ),
    outputs=tuple(folder / f for f in ("metrics.json", BASELINES, REPORT)),
    needs=("simulate train", f"predict {name}"),
    kind="score",
  )


def _export(out: Path, name: str, options: tuple) -> Job:
  folder = out / "export" / name
  return Job(
    f"export {name}",
    command=(
      *("convert", "--from", out / "stage2", "--to", folder),
      *(*options, "--overwrite"),
    ),
    # The folder appears once it is complete.
    outputs=(folder / RECORD,),
    needs=("train stage2",),
    kind="export",
  )


def _report(out: Path, plan: Plan) -> None:
  runs = lineage.lineage(out / "stage2")
  metrics = _metrics(out)
  model = {
    name: part for rows in _STAGES for name, part in metrics[rows].items()
  }
  write_report(
    out / REPORT,
    title=f"Demo: {plan.unseen} unseen simulated scenes",
    scores=read_scores(model),
    baselines={"base, before stages 1 and 2": read_scores(metrics[_BASE])},
    samples=[answer for rows in _STAGES for answer in _answers(out, rows)],
    curves=read_curves(runs),
    provenance={
      "demo": read_object(out / _SETTINGS),
      "unseen scenes": lineage.shortened(
        read_object(out / "data" / "unseen" / "dataset.json")
      ),
      **lineage.records(runs),
    },
    tested=[test for rows in _STAGES for test in _tested(out, rows)],
  )


def _answers(out: Path, rows: str) -> list[Answer]:
  """Returns predictions with their scores, images and the base's answers."""
  given = read_rows(_predictions(out, rows)).rows
  samples = read_samples(out / "scores" / rows)
  before = {
    row.id: row.text for row in read_rows(_predictions(out, _BASE)).rows
  }
  return [
    dataclasses.replace(answer, earlier=((_BASE, before[answer.id]),))
    for answer in read_answers(given, samples, manifest(out, "unseen", rows))
  ]


def _predictions(out: Path, name: str) -> Path:
  return out / "predictions" / name / FINISHED


def _metrics(out: Path) -> dict[str, dict]:
  """Returns metrics by the name of their folder."""
  return {
    name: read_object(out / "scores" / name / "metrics.json")
    for name in (*_STAGES, _BASE)
  }


@dataclasses.dataclass(frozen=True)
class _Line:
  """One score of the summary.

  Attributes:
    gain: of the model over the base, on the same rows.
    test: of the model against the strongest baseline that does not look at the
      image.
  """

  gain: pairing.Comparison
  test: Tested


def _lines(out: Path) -> list[_Line]:
  """Returns the lines of `_COMPARED`; few scenes may lack a task."""
  base = {
    sample["id"]: sample for sample in read_samples(out / "scores" / _BASE)
  }
  found = {}
  for rows in _STAGES:
    samples = read_samples(out / "scores" / rows)
    pairs = [(sample, base[sample["id"]]) for sample in samples]
    gains = {
      (one.task, one.score): one
      for one in pairing.compare([pairs], only=_COMPARED)
    }
    for test in _tested(out, rows):
      key = (test.task, test.score)
      if key in gains and not test.looks_at_image:
        found[key] = _Line(gains[key], test)
  return [found[key] for key in _COMPARED if key in found]


def _tested(out: Path, rows: str) -> list[Tested]:
  tests = read_object(out / "scores" / rows / BASELINES)["comparisons"]
  return [Tested(**test) for test in tests]


def _print_summary(out: Path, plan: Plan) -> None:
  """Prints the main scores and the output paths."""
  table = Table(title=f"{plan.unseen} unseen scenes, percent", box=box.SIMPLE)
  table.add_column("score")
  for name in ("base", "model", "gain (95 %)", "best blind", "better"):
    table.add_column(name, justify="right", no_wrap=True)
  for line in _lines(out):
    gain, test = line.gain, line.test
    low, high = (100 * bound for bound in gain.ci95)
    table.add_row(
      _COMPARED[gain.task, gain.score],
      f"{100 * gain.second:.0f}",
      f"{100 * gain.first:.0f}",
      f"{100 * gain.difference:+.0f} ({low:+.0f} to {high:+.0f})",
      f"{100 * test.value:.0f} {test.baseline}",
      "yes" if test.better else "no",
    )
  console = Console()
  console.print(table)
  console.print(
    "accuracy; grounding: all cells right; detection: F1 at IoU 0.25; gain:"
    " model - base, paired by row; better: than the strongest baseline that"
    " does not look at the image, by a paired test (p < 0.05)"
  )
  for what, path in (
    ("adapter", out / "export" / "adapter"),
    ("model", out / "export" / "merged"),
    ("report", out / REPORT),
  ):
    console.print(f"{what:9} {path}", soft_wrap=True)
