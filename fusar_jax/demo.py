"""The whole way, from nothing: simulate, train, predict, score, export.

COMMAND:
  python -m fusar_jax.demo --out runs/demo

A very small model learns from nothing: stage 0 the words and the pictures,
stage 1 what the anchors know about the ground, stage 2 to count ships. What it
answers on scenes that it has never seen stands beside answers that look at no
image. Every step prints the command that does the same; after an interruption
the same command goes on.
"""

import argparse
import dataclasses
import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from fusar_jax import convert, evaluate, predict, simulate
from fusar_jax.data import vision
from fusar_jax.report.figures import prediction_sheet
from fusar_jax.training.loop import train_and_evaluate

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_SHOWN = 12
# What the summary compares: where its rows lie, task, score.
_COMPARED = (
  ("captions", "captioning", "accuracy"),
  ("captions", "captioning", "word_f1"),
  ("tasks", "counting", "accuracy"),
  ("tasks", "counting", "mae"),
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """How much of everything; the defaults are for minutes on 2 cores.

  Attributes:
    scenes, unseen: simulated scenes to learn from, and to be scored on.
    side: pixels per side of an image, 28 to the visual token.
    layers: of the tower and of the decoder.
    stage0_steps, stage1_steps, stage2_steps: of 16 examples each.
  """

  scenes: int = 600
  unseen: int = 60
  side: int = 112
  layers: int = 2
  stage0_steps: int = 220
  stage1_steps: int = 60
  stage2_steps: int = 60


def run(out: str | Path, plan: Plan) -> dict[str, dict]:
  """Runs the demo; returns the metrics of each predictions file and baseline.

  Args:
    out: folder of the demo; one that was begun is gone on with.
    plan: how much of everything.

  Raises:
    FileNotFoundError: the configs, which lie beside the package in the
      repository and are not installed with it.
    RuntimeError: a step failed; it has told why.
    ValueError, OSError: as `train_and_evaluate`.
  """
  demo = _Demo(Path(out), plan)
  demo.simulate()
  demo.train()
  demo.predict()
  metrics = demo.score()
  demo.export()
  demo.draw()
  demo.summarise(metrics)
  return metrics


class _Demo:
  """The steps, in their order; a finished one is not repeated."""

  def __init__(self, out: Path, plan: Plan):
    self.out, self.plan = out, plan
    self.console = Console()
    self.began = time.monotonic()

  def simulate(self) -> None:
    self._tell("simulated scenes: ships on a speckled sea, with anchors")
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
          *("--size", self.plan.side, "--tasks", "counting,captioning"),
        )

  def train(self) -> None:
    plan, data = self.plan, self.out / "data" / "train"
    self._tell("stage 0: words and pictures, from nothing")
    self._train(
      "stage0",
      "stage0_tiny",
      "",
      {
        "model.image_size": (plan.side, plan.side),
        "model.vision.depth": plan.layers,
        "model.vision.full_attention": (plan.layers - 1,),
        "model.decoder.layers": plan.layers,
        "data.train": str(data / "manifest.jsonl"),
        "steps": plan.stage0_steps,
      },
    )
    shared = {"model.image_size": (plan.side, plan.side)}
    self._tell("stage 1: what the anchors know; TLM and LoRA learn")
    self._train(
      "stage1",
      "stage1",
      "model=init",
      {
        **shared,
        "init": str(self.out / "stage0"),
        "data.train": str(data / "captions.jsonl"),
        "steps": plan.stage1_steps,
      },
    )
    self._tell("stage 2: counting; LoRA learns")
    self._train(
      "stage2",
      "stage2",
      "model=init",
      {
        **shared,
        "init": str(self.out / "stage1"),
        "data.train": str(data / "tasks.jsonl"),
        "steps": plan.stage2_steps,
      },
    )

  def predict(self) -> None:
    self._tell("answers on scenes that were never seen")
    for rows, stage in (("captions", "stage1"), ("tasks", "stage2")):
      folder = self._predictions(rows)
      if not (folder / predict.FINISHED).is_file():
        self._command(
          predict.main,
          "predict",
          *("--model", self.out / stage),
          *("--data", self._manifest("unseen", rows), "--out", folder),
        )

  def score(self) -> dict[str, dict]:
    """Returns metrics by the name of their folder."""
    self._tell("scores, beside answers that look at no image")
    metrics = {}
    for rows in ("captions", "tasks"):
      for name, arguments in (
        (rows, ("--predictions", self._predictions(rows) / predict.FINISHED)),
        (
          f"{rows}-baseline",
          (
            *("--baseline", "--manifest", self._manifest("unseen", rows)),
            *("--train", self._manifest("train", rows)),
          ),
        ),
      ):
        folder = self.out / "scores" / name
        self._command(evaluate.main, "evaluate", *arguments, "--out", folder)
        text = (folder / "metrics.json").read_text(encoding="utf-8")
        metrics[name] = json.loads(text)
    return metrics

  def export(self) -> None:
    self._tell("folders for transformers and peft")
    export = self.out / "export"
    for stage, name, *more in (
      ("stage0", "base"),
      ("stage2", "adapter", "--adapter-only", "--base-name", export / "base"),
      ("stage2", "merged"),
    ):
      self._command(
        convert.main,
        "convert",
        *("--from", self.out / stage, "--to", export / name),
        *more,
        "--overwrite",
      )

  def draw(self) -> None:
    path = self._predictions("tasks") / predict.FINISHED
    lines = path.read_text(encoding="utf-8").splitlines()[:_SHOWN]
    rows = [json.loads(line) for line in lines]
    size = (self.plan.side, self.plan.side)
    images = [
      vision.resize(
        vision.load_image(self.out / "data" / "unseen" / row["image"]), size
      )
      for row in rows
    ]
    prediction_sheet(rows, images, self.out / "predictions.png")

  def summarise(self, metrics: dict[str, dict]) -> None:
    table = Table(title="on scenes that were never seen")
    for name in ("task", "score", "model (95 %)", "without looking", "n"):
      table.add_column(name, justify="left" if name == "task" else "right")
    for rows, task, name in _COMPARED:
      scores = metrics[rows][task]
      low, high = scores["ci95"][name]
      blind = metrics[f"{rows}-baseline"][task][name]
      table.add_row(
        task,
        name,
        f"{scores[name]:.3f} ({low:.3f} - {high:.3f})",
        f"{blind:.3f}",
        str(scores["n"]),
      )
    self.console.print(table)
    for what, place in (
      ("pictures", self.out / "predictions.png"),
      ("answers", self._predictions("tasks") / predict.FINISHED),
      ("adapter", self.out / "export" / "adapter"),
      ("model", self.out / "export" / "merged"),
    ):
      self.console.print(f"{what:9} {place}", soft_wrap=True)
    print(f"demo: done in {time.monotonic() - self.began:.0f} s")

  def _train(self, name: str, file: str, arg: str, values: dict) -> None:
    config = get_config(file, arg)
    with config.unlocked():
      config.update_from_flattened_dict(values)
    workdir = self.out / name
    source = f"configs/{file}.py" + f":{arg}" * bool(arg)
    self._show(
      "train",
      *("--config", source),
      *(f"--config.{key}={value}" for key, value in values.items()),
      *("--workdir", workdir),
    )
    if train_and_evaluate(config, workdir).preempted:
      raise RuntimeError(f"{name} was stopped; the same command goes on.")

  def _command(self, main: Callable, name: str, *arguments) -> None:
    arguments = self._show(name, *arguments)
    if main(arguments):
      raise RuntimeError(f"{name} failed.")

  def _show(self, name: str, *arguments) -> Sequence[str]:
    arguments = [str(a) for a in arguments]
    print(f"$ python -m fusar_jax.{name} {shlex.join(arguments)}", flush=True)
    return arguments

  def _tell(self, text: str) -> None:
    seconds = time.monotonic() - self.began
    self.console.rule(f"{text} [dim]({seconds:.0f} s)[/dim]")

  def _manifest(self, part: str, rows: str) -> Path:
    return self.out / "data" / part / f"{rows}.jsonl"

  def _predictions(self, rows: str) -> Path:
    return self.out / "predictions" / rows


def get_config(name: str, arg: str = "") -> ConfigDict:
  """Returns a config of the repository, `configs/NAME.py:ARG`.

  Raises:
    FileNotFoundError: the package was installed without its repository.
  """
  path = _CONFIGS / f"{name}.py"
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} not found: the demo needs the repository, whose configs are not"
      " installed with the package. Run it from a checkout (pip install -e .)."
    )
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg)


def parser() -> argparse.ArgumentParser:
  """Returns the command line."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.demo",
    description=__doc__.split("\n")[0],
  )
  p.add_argument("--out", required=True, help="folder of the demo")
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = parser().parse_args(argv)
  try:
    run(args.out, Plan())
  except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
    Console(stderr=True).print(
      f"demo: {error}", style="red", markup=False, soft_wrap=True
    )
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
