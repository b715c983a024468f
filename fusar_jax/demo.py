"""End-to-end demo on simulated scenes: train, predict, score, export, report.

COMMAND (minutes on 2 cores; --long: the half-hour recipe):
  python -m fusar_jax.demo --out runs/demo
  python -m fusar_jax.demo --out runs/demo_long --long

Starts from the tiny base in the package, which was trained without anchors.
Stage 1 trains TLM and LoRA on captions, stage 2 trains LoRA on counting,
grounding, classification and detection. On unseen scenes the result is compared
with the base and with the text-only majority baseline. Every step prints the
equivalent command. After an interruption the same command continues.
"""

import argparse
import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusar_jax import command_line, convert, evaluate, predict, simulate
from fusar_jax.experiments import buckets
from fusar_jax.experiments.background import BackgroundCommand
from fusar_jax.hf.folders import TINY_BASE
from fusar_jax.report import lineage
from fusar_jax.report.answers import Answer, read_answers
from fusar_jax.report.curves import read_curves
from fusar_jax.report.evaluation import REPORT
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import Score, read_scores
from fusar_jax.report.scoring import read_samples
from fusar_jax.training import provenance
from fusar_jax.training.compile_cache import compile_cache
from fusar_jax.training.provenance import read_json
from fusar_jax.training.recipes import Recipe
from fusar_jax.training.resume_config import check_resume_config

_SETTINGS = "demo.json"
_STEPS = 7
# From this number of steps on, compiling several sequence lengths pays off.
_MANY_STEPS = 200
# Manifest (and folder of scores) -> stage that predicts it.
_STAGES = {"captions": "stage1", "tasks": "stage2"}
_BASE, _BLIND = "base", "baseline"
# (task, metric) rows of the summary.
_COMPARED = (
  ("captioning", "accuracy"),
  ("counting", "accuracy"),
  ("grounding", "acc@100"),
  ("classification", "accuracy"),
  ("detection", "f1@0.25"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """Sizes of the demo; the defaults take minutes on 2 cores.

  Attributes:
    scenes, unseen: numbers of simulated scenes for training and for testing.
    side: pixels per side of an image, 28 per visual token.
    stage1_steps, stage2_steps: train steps of `batch_size` examples.
    learning_rate: of both stages; three times that of the configs, which
      assume more steps.
    batch_size: examples per step.
    max_new_tokens: maximum length of an answer.
    answered_at_once: batch size of prediction.
  """

  scenes: int = 420
  unseen: int = 300
  side: int = 168
  stage1_steps: int = 25
  stage2_steps: int = 110
  learning_rate: float = 3e-3
  batch_size: int = 16
  max_new_tokens: int = 96
  answered_at_once: int = 64


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
  demo = _Demo(Path(out), plan, str(base))
  demo.begin()
  # The models share compiled programs: each is compiled once.
  with compile_cache(demo.out / "compiled"):
    demo.simulate()
    demo.train()
    demo.predict()
    metrics = demo.score()
    demo.export()
    demo.report(metrics)
    demo.summarise(metrics)
  return metrics


class _Demo:
  """The steps in order; finished steps are skipped."""

  def __init__(self, out: Path, plan: Plan, base: str):
    self.out, self.plan, self.base = out, plan, base
    self.console = Console()
    self.began = time.monotonic()
    self.step = 0

  def begin(self) -> None:
    """Raises at once for settings that would fail minutes later."""
    source = provenance.describe(self.base, self.out)
    check_resume_config(
      self.out / _SETTINGS,
      {
        **dataclasses.asdict(self.plan),
        "base": self.base,
        "base_sha256": source.sha256,
      },
    )

  def simulate(self) -> None:
    self._tell("simulate SAR scenes with AlphaEarth-like anchors and text")
    for name, scenes, seed in (
      ("train", self.plan.scenes, 1),
      ("unseen", self.plan.unseen, 2),
    ):
      folder = self.out / "data" / name
      if not (folder / "dataset.json").is_file():
        self._command(
          simulate.main,
          "simulate",
          *("--out", folder, "--scenes", scenes, "--seed", seed),
          *("--size", self.plan.side),
        )

  def train(self) -> None:
    self._tell("stage 1: train TLM and LoRA on captions")
    self._train("stage1", self.base, "captions", self.plan.stage1_steps)
    self._tell("stage 2: train LoRA on four tasks")
    self._train("stage2", self.out / "stage1", "tasks", self.plan.stage2_steps)

  def predict(self) -> None:
    """Predicts with the model; the base predicts in a background process."""
    self._tell("predict on unseen scenes, with the model and with the base")
    with self._beside(_BASE, self.base, "manifest"):
      for rows, stage in _STAGES.items():
        self._predict(rows, self.out / stage, rows)

  def score(self) -> dict[str, dict]:
    """Returns metrics by the name of their folder."""
    self._tell("score the model, the base and the majority baseline")
    asked = {
      name: ("--predictions", self._predictions(name))
      for name in (*_STAGES, _BASE)
    }
    asked[_BLIND] = (
      *("--baseline", "--manifest", self._manifest("unseen", "manifest")),
      *("--train", self._manifest("train", "manifest")),
    )
    metrics = {}
    for name, arguments in asked.items():
      folder = self._scores(name)
      self._command(evaluate.main, "evaluate", *arguments, "--out", folder)
      metrics[name] = read_json(folder / "metrics.json")
    return metrics

  def export(self) -> None:
    self._tell("export for transformers and peft")
    for name, *more in (
      ("adapter", "--adapter-only", "--base-name", self.base),
      ("merged",),
    ):
      self._command(
        convert.main,
        "convert",
        *("--from", self.out / "stage2", "--to", self.out / "export" / name),
        *more,
        "--overwrite",
      )

  def report(self, metrics: dict[str, dict]) -> None:
    self._tell("write the report and the summary")
    runs = lineage.lineage(self.out / "stage2")
    model, base, blind = _compared(metrics)
    write_report(
      self.out / REPORT,
      title=f"Demo: {self.plan.unseen} unseen simulated scenes",
      scores=model,
      baselines={
        "base, before stages 1 and 2": base,
        "majority baseline": blind,
      },
      samples=[answer for rows in _STAGES for answer in self._answers(rows)],
      curves=read_curves(runs),
      provenance={
        "demo": read_json(self.out / _SETTINGS),
        "unseen scenes": lineage.shortened(
          read_json(self.out / "data" / "unseen" / "dataset.json")
        ),
        **lineage.records(runs),
      },
    )

  def summarise(self, metrics: dict[str, dict]) -> None:
    """Prints the main scores and the output paths."""
    table = Table(title=f"{self.plan.unseen} unseen scenes")
    for name in ("task", "score", "model", "base", "majority", "better"):
      table.add_column(
        name, justify="left" if name in ("task", "score") else "right"
      )
    found = [{(s.task, s.name): s for s in part} for part in _compared(metrics)]
    for key in _COMPARED:
      if key not in found[0]:
        continue  # Few scenes may have no classification rows.
      model, *others = (part[key] for part in found)
      apart = all(model.low > other.high for other in others)
      table.add_row(
        *key,
        *(_percent(score) for score in (model, *others)),
        "yes" if apart else "no",
      )
    self.console.print(table)
    self.console.print(
      "percent with 95 % intervals; better: the model's lies above both others"
    )
    for what, place in (
      ("adapter", self.out / "export" / "adapter"),
      ("model", self.out / "export" / "merged"),
      ("report", self.out / REPORT),
    ):
      self.console.print(f"{what:9} {place}", soft_wrap=True)
    print(f"demo: done in {time.monotonic() - self.began:.0f} s")

  def _train(self, stage: str, init: str | Path, rows: str, steps: int) -> None:
    many = steps >= _MANY_STEPS
    values = {
      "init": str(init),
      "model.image_size": (self.plan.side, self.plan.side),
      "data.train": str(self._manifest("train", rows)),
      "data.buckets": buckets.LENGTHS if many else buckets.LONGEST[rows],
      "data.answer_buckets": buckets.ANSWERS,
      "batch_size": self.plan.batch_size,
      "steps": steps,
      "optimizer.learning_rate": self.plan.learning_rate,
      "log_every_steps": 5,
    }
    recipe = Recipe(stage, values, self.out / stage)
    self._show("train", *recipe.arguments())
    recipe.train()

  def _predict(self, name: str, model: str | Path, rows: str) -> None:
    if not self._predictions(name).is_file():
      arguments = self._answering(name, model, rows)
      self._command(predict.main, "predict", *arguments)

  def _beside(
    self, name: str, model: str | Path, rows: str
  ) -> contextlib.AbstractContextManager:
    """Runs `_predict` in a background process; the exit waits for it."""
    if self._predictions(name).is_file():
      return contextlib.nullcontext()
    arguments = self._show("predict", *self._answering(name, model, rows))
    log = self._predictions(name).parent / "predict.log"
    print(f"(in the background; output in {log})", flush=True)
    return BackgroundCommand(
      "predict", predict.main, arguments, log, self.out / "compiled"
    )

  def _answering(self, name: str, model: str | Path, rows: str) -> tuple:
    return (
      *("--model", model, "--data", self._manifest("unseen", rows)),
      *("--out", self._predictions(name).parent),
      *("--max-new-tokens", self.plan.max_new_tokens),
      *("--batch-size", self.plan.answered_at_once),
    )

  def _answers(self, rows: str) -> list[Answer]:
    """Returns predictions with their scores and images."""
    given = evaluate.read_rows(self._predictions(rows)).rows
    samples = read_samples(self._scores(rows))
    return read_answers(given, samples, self._manifest("unseen", rows))

  def _command(self, main: Callable, name: str, *arguments) -> None:
    arguments = self._show(name, *arguments)
    if main(arguments):
      raise RuntimeError(f"{name} failed.")

  def _show(self, name: str, *arguments) -> Sequence[str]:
    arguments = [str(a) for a in arguments]
    print(f"$ python -m fusar_jax.{name} {shlex.join(arguments)}", flush=True)
    return arguments

  def _tell(self, text: str) -> None:
    self.step += 1
    seconds = time.monotonic() - self.began
    self.console.rule(
      f"{self.step}/{_STEPS} {text} [dim]({seconds:.0f} s)[/dim]"
    )

  def _manifest(self, part: str, rows: str) -> Path:
    return self.out / "data" / part / f"{rows}.jsonl"

  def _predictions(self, name: str) -> Path:
    return self.out / "predictions" / name / predict.FINISHED

  def _scores(self, name: str) -> Path:
    return self.out / "scores" / name


def _compared(metrics: dict[str, dict]) -> tuple[tuple[Score, ...], ...]:
  """Returns the scores of the model, the base and the majority baseline."""
  model = {}
  for rows in _STAGES:
    model |= metrics[rows]
  return tuple(map(read_scores, (model, metrics[_BASE], metrics[_BLIND])))


def _percent(score: Score) -> str:
  """Returns e.g. "62 (55-69)"; short, so that the table fits 80 columns."""
  value, low, high = 100 * score.value, 100 * score.low, 100 * score.high
  return f"{value:.0f} ({low:.0f}-{high:.0f})"


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("demo", __doc__)
  p.add_argument("--out", required=True, help="output folder")
  p.add_argument(
    "--long", action="store_true", help="train for half an hour; better scores"
  )
  p.add_argument(
    "--base",
    default=TINY_BASE,
    help="run or Hugging Face folder to start from (default: the base in the"
    " package)",
  )
  return p


def _demo(args: argparse.Namespace) -> None:
  run(args.out, LONG if args.long else Plan(), args.base)


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _demo, argv, errors=(RuntimeError,))


if __name__ == "__main__":
  sys.exit(main())
