"""The whole way on simulated scenes: train, predict, score, export, report.

COMMAND (minutes on 2 cores; --long: the half-hour recipe):
  python -m fusar_jax.demo --out runs/demo
  python -m fusar_jax.demo --out runs/demo_long --long

It starts from the tiny base that is shipped with the package and has never met
an anchor. Stage 1 learns from captions what the anchors know about the ground,
stage 2 to count, ground, classify and detect. What the model answers on scenes
that it has never seen stands beside the answers of the base and beside answers
that look at no image. Every step prints the command that does the same; after
an interruption the same command goes on.
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

from fusar_jax import convert, evaluate, predict, simulate
from fusar_jax.experiments import buckets
from fusar_jax.experiments.beside import Beside
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
from fusar_jax.training.settings import settle

_SETTINGS = "demo.json"
_STEPS = 7
# From so many on, steps of several lengths are worth compiling.
_MANY_STEPS = 200
# Of the model, who answers what; names of manifests and of scores.
_STAGES = {"captions": "stage1", "tasks": "stage2"}
_BASE, _BLIND = "base", "baseline"
# What the summary compares.
_COMPARED = (
  ("captioning", "accuracy"),
  ("counting", "accuracy"),
  ("grounding", "acc@100"),
  ("classification", "accuracy"),
  ("detection", "f1@0.25"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much of everything; the defaults are for minutes on 2 cores.

  Attributes:
    scenes, unseen: simulated scenes to learn from, and to be scored on.
    side: pixels per side of an image, 28 to the visual token.
    stage1_steps, stage2_steps: of `batch_size` examples each.
    learning_rate: of both stages; three times that of the configs, which are
      meant for more steps.
    batch_size: examples a step.
    max_new_tokens: cap on an answer.
    answered_at_once: rows whose answers are written together.
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
    out: folder of the demo; one that was begun is gone on with.
    plan: how much of everything.
    base: a Hugging Face folder or a run, without LoRA and TLM.

  Raises:
    FileNotFoundError: no base, or no configs: they lie beside the package in
      the repository and are not installed with it.
    RuntimeError: a step failed; it has told why.
    ValueError, OSError: as `train_and_evaluate`; or `out` holds a demo of
      other settings.
  """
  demo = _Demo(Path(out), plan, str(base))
  demo.begin()
  # Its models answer by the same programs, each compiled once.
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
  """The steps, in their order; a finished one is not repeated."""

  def __init__(self, out: Path, plan: Plan, base: str):
    self.out, self.plan, self.base = out, plan, base
    self.console = Console()
    self.began = time.monotonic()
    self.step = 0

  def begin(self) -> None:
    """Refuses what would fail minutes later."""
    source = provenance.describe(self.base, self.out)
    settle(
      self.out / _SETTINGS,
      {
        **dataclasses.asdict(self.plan),
        "base": self.base,
        "base_sha256": source.sha256,
      },
    )

  def simulate(self) -> None:
    self._tell("simulate scenes with radar, AlphaEarth-like anchors and words")
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
    self._tell("stage 1: what the anchors know; TLM and LoRA learn captions")
    self._train("stage1", self.base, "captions", self.plan.stage1_steps)
    self._tell("stage 2: four tasks; LoRA learns to answer")
    self._train("stage2", self.out / "stage1", "tasks", self.plan.stage2_steps)

  def predict(self) -> None:
    """The base answers beside the model: the same rows, in the same time."""
    self._tell("answers on scenes that were never seen; the base's beside them")
    with self._beside(_BASE, self.base, "manifest"):
      for rows, stage in _STAGES.items():
        self._predict(rows, self.out / stage, rows)

  def score(self) -> dict[str, dict]:
    """Returns metrics by the name of their folder."""
    self._tell("scores, beside the base and answers that look at no image")
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
    self._tell("folders for transformers and peft")
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
    self._tell("report and summary")
    runs = lineage.lineage(self.out / "stage2")
    model, base, blind = _compared(metrics)
    write_report(
      self.out / REPORT,
      title=f"The demo: {self.plan.unseen} simulated scenes, never seen before",
      scores=model,
      baselines={
        "base, before stages 1 and 2": base,
        "most common answer": blind,
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
    """Prints the main scores and where everything lies."""
    table = Table(title=f"{self.plan.unseen} scenes that were never seen")
    for name in ("task", "score", "model", "base", "no image", "apart"):
      table.add_column(
        name, justify="left" if name in ("task", "score") else "right"
      )
    found = [{(s.task, s.name): s for s in part} for part in _compared(metrics)]
    for key in _COMPARED:
      if key not in found[0]:
        continue  # A few scenes may hold nothing to classify.
      model, *others = (part[key] for part in found)
      apart = all(model.low > other.high for other in others)
      table.add_row(
        *key,
        *(_percent(score) for score in (model, *others)),
        "yes" if apart else "no",
      )
    self.console.print(table)
    self.console.print(
      "percent with 95 % intervals; apart: the model's lies above both others"
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
    """The same in another process, while the `with` lasts or longer."""
    if self._predictions(name).is_file():
      return contextlib.nullcontext()
    arguments = self._show("predict", *self._answering(name, model, rows))
    log = self._predictions(name).parent / "predict.log"
    print(f"(beside what follows; what it prints is in {log})", flush=True)
    return Beside(
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
    """What was predicted and scored, with its pictures."""
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
  """Returns the scores of the model, of the base, and without an image."""
  model = {}
  for rows in _STAGES:
    model |= metrics[rows]
  return tuple(map(read_scores, (model, metrics[_BASE], metrics[_BLIND])))


def _percent(score: Score) -> str:
  """Example: "62 (55-69)": all columns fit into 80 characters."""
  value, low, high = 100 * score.value, 100 * score.low, 100 * score.high
  return f"{value:.0f} ({low:.0f}-{high:.0f})"


def parser() -> argparse.ArgumentParser:
  """Returns the command line."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.demo",
    description=__doc__.split("\n")[0],
  )
  p.add_argument("--out", required=True, help="folder of the demo")
  p.add_argument(
    "--long", action="store_true", help="the half-hour recipe, better scores"
  )
  p.add_argument(
    "--base",
    default=TINY_BASE,
    help="run or Hugging Face folder to start from (default: the one that comes"
    " with the package)",
  )
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = parser().parse_args(argv)
  console = Console(stderr=True)
  try:
    run(args.out, LONG if args.long else Plan(), args.base)
  except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
    console.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
    return 1
  except KeyboardInterrupt:
    console.print("demo: interrupted; the same command goes on.", style="red")
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
