"""Terminal table of a model against the strongest baselines."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from fusar_jax.report.baselines import LEVEL, Tested
from fusar_jax.report.comparisons import p_text
from fusar_jax.report.metric_names import in_words
from fusar_jax.report.score_table import PLAIN


@dataclasses.dataclass(frozen=True)
class Line:
  """One score: its tests against the strongest baselines.

  Attributes:
    blind: the test against the strongest blind baseline.
    image: the test against the one that looks at the image, or None.
  """

  blind: Tested
  image: Tested | None

  @property
  def name(self) -> str:
    """Name of the score in words."""
    return in_words(self.blind.task, self.blind.score)

  @property
  def model(self) -> str:
    """The model's score, in percent except for PLAIN scores."""
    return self._shown(self.blind.model)

  @property
  def baseline(self) -> str:
    """Name and score of the strongest blind baseline."""
    return f"{self.blind.baseline} {self._shown(self.blind.value)}"

  @property
  def difference(self) -> str:
    """The difference from the blind baseline and its interval."""
    one = self.blind
    shown = (self._shown(v, "+") for v in (one.difference, *one.ci95))
    return "{} ({} to {})".format(*shown)

  @property
  def p(self) -> str:
    """p value of this difference."""
    return p_text(self.blind.p)

  @property
  def looking(self) -> str:
    """Name and score of the other baseline, and whether the model is better."""
    one = self.image
    if one is None:
      return ""
    verdict = "better" if one.better else "not better"
    value = self._shown(one.value)
    return f"{one.baseline} {value}: {verdict}, p {p_text(one.p)}"

  def _shown(self, value: float, sign: str = "") -> str:
    if self.blind.score in PLAIN:
      return f"{value:{sign}.2f}"
    return f"{100 * value:{sign}.1f}"


def lines(tested: Sequence[Tested]) -> list[Line]:
  """Returns one line per score, in order."""
  image = {(t.task, t.score): t for t in tested if t.looks_at_image}
  return [
    Line(t, image.get((t.task, t.score)))
    for t in tested
    if not t.looks_at_image
  ]


def groups(tested: Sequence[Tested]) -> list[tuple[str, list[Line]]]:
  """Returns (task, its lines), in order."""
  tasks = itertools.groupby(lines(tested), lambda line: line.blind.task)
  return [(task, list(found)) for task, found in tasks]


def strongest(tested: Sequence[Tested]) -> Mapping[tuple[str, str], float]:
  """Returns (task, score) -> that of the strongest blind baseline."""
  return {(t.task, t.score): t.value for t in tested if not t.looks_at_image}


def table(tested: Sequence[Tested], title: str) -> Table:
  """Returns the terminal table, one block per task."""
  shown = Table(
    title=Text(title, overflow="fold"),
    caption="percent, except for mean absolute errors and CIDEr-D; better:"
    f" than the strongest blind baseline, paired p < {LEVEL}",
  )
  for name in (
    "score",
    "model",
    "strongest blind baseline",
    "difference (95 %)",
    "p",
    "better",
    "baseline that sees the image",
  ):
    left = name in (
      "score",
      "strongest blind baseline",
      "baseline that sees the image",
    )
    shown.add_column(
      name, justify="left" if left else "right", no_wrap=name == "score"
    )
  task = None
  for line in lines(tested):
    one = line.blind
    if one.task != task:
      if task:
        shown.add_section()
      task = one.task
      shown.add_row(f"[bold]{task}, n = {one.n}[/bold]")
    shown.add_row(
      line.name,
      line.model,
      line.baseline,
      line.difference,
      line.p,
      "yes" if one.better else "no",
      line.looking,
    )
  return shown
