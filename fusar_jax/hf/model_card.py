"""README.md of an exported folder: what it is, what it comes from, how to load.

The hub shows it as the model's page. Its Python blocks are run by tests.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fusar_jax.geo.anchors import ATTRIBUTION
from fusar_jax.hf import tlm_file
from fusar_jax.hf.card_scores import Scores
from fusar_jax.hf.folders import RECORD
from fusar_jax.hf.licence_files import Terms, copy_terms
from fusar_jax.model.config import FusarConfig

CARD = "README.md"
_MAX_LINE = 300
# The hub compares scores of metadata, which have no n and no interval.
_FEW = 30
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TAGS = ("sar", "remote-sensing", "earth-observation", "fusar-gpt")

_OURS = """\
## Use

With fusar_jax{with_tlm}:

```text
model = fusar_jax.load({folder})
model.ask("scene.png", "How many ships are in the image?"{anchors})
```
"""

_ANCHORS = """
With transformers 5 (tested with 5.23) and anchors: `images` and `anchors` are
lists with one entry per image; an entry of `anchors` is an `.npz` with
`features` [S, 64] (AlphaEarth vectors) and `positions` [S, 2] ((y, x) in [0, 1]
of the image), a pair of such arrays, or None. `trust_remote_code` runs
`modeling_fusar_gpt.py` and `processing_fusar_gpt.py` of this folder on your
machine: read them first, and name a commit (`revision=`) of a repository.

```python
# anchors
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForImageTextToText.from_pretrained(
  folder, trust_remote_code=True
)
content = [{"type": "image"} for _ in images]
content.append({"type": "text", "text": question})
prompt = processor.apply_chat_template(
  [{"role": "user", "content": content}], add_generation_prompt=True
)
inputs = processor(text=prompt, images=images, anchors=anchors)
output = model.generate(**inputs, max_new_tokens=2048)
new = output[:, inputs["input_ids"].shape[1] :]
answer = processor.batch_decode(new, skip_special_tokens=True)[0]
```
"""

_PLAIN = """
With transformers 5 (AutoProcessor needs torchvision){without_tlm}:

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
image = Image.open(path).convert("RGB")
{resize}messages = [
  {{
    "role": "user",
    "content": [
      {{"type": "image", "image": image}},
      {{"type": "text", "text": question}},
    ],
  }}
]
inputs = processor.apply_chat_template(
  messages,
  add_generation_prompt=True,
  tokenize=True,
  return_dict=True,
  return_tensors="pt",
)
output = model.generate(**inputs, max_new_tokens=2048)
new = output[:, inputs["input_ids"].shape[1] :]
answer = processor.batch_decode(new, skip_special_tokens=True)[0]
```
"""

_RESIZE = """\
# The size that the model sees, aspect not kept; boxes are in its pixels.
image = image.resize(({width}, {height}), Image.Resampling.BICUBIC)
"""

_ADAPTER = """
With peft: `base` is a folder or hub id of the base model, `adapter` one of this
model.{tlm}

```python
# adapter
{body}```
"""

_ADAPTER_TLM = """\
import peft
from transformers import AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

FusarGPT = get_class_from_dynamic_module(
  "modeling_fusar_gpt.FusarGPTForConditionalGeneration", adapter
)
model = FusarGPT.from_pretrained(base, tlm=adapter)
model = peft.PeftModel.from_pretrained(model, adapter)
processor = AutoProcessor.from_pretrained(adapter, trust_remote_code=True)
"""

_ADAPTER_PLAIN = """\
import peft
import transformers

model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
model = peft.PeftModel.from_pretrained(model, adapter)
"""


@dataclasses.dataclass(frozen=True)
class Publication:
  """What a card says beyond the model's config.

  Attributes:
    base: hub id of the base model, or None; a path is not published.
    terms: licence of the base.
    scores: of an evaluation, or None.
    adapter: the folder holds LoRA and TLM alone.
    record: of the run that the weights come from, see `folders.RECORD`.
    applied: licence of the adapter that was put on the base; None: none was.
  """

  base: str | None = None
  terms: Terms = Terms()
  scores: Scores | None = None
  adapter: bool = False
  record: Mapping[str, Any] | None = None
  applied: Terms | None = None

  @property
  def base_id(self) -> str | None:
    """The base's hub id, or None."""
    known = self.base and _HUB_ID.fullmatch(self.base)
    return self.base if known and not Path(known[0]).exists() else None


UNKNOWN = Publication()


def write_model_card(
  folder: Path,
  config: FusarConfig,
  about: Publication = UNKNOWN,
) -> None:
  """Writes README.md, and the base's licence files, into a folder.

  Args:
    folder: to write to.
    config: of the exported model.
    about: what else is known.
  """
  copy_terms(about.terms, Path(folder))
  title = "FUSAR-GPT" if config.tlm else "Qwen2.5-VL for SAR images"
  text = "\n".join(
    part.rstrip("\n") + "\n"
    for part in (
      f"---\n{_front_matter(title, config, about)}---\n# {title}",
      f"Exported by fusar_jax. {_kind(config, about)}",
      "\n".join(_origin(about)),
      *_scores(about.scores),
      _use(config, about),
      _changes(config, about),
      _limits(config, about),
      "\n".join(_licences(config, about)),
    )
    if part
  )
  (Path(folder) / CARD).write_text(text, encoding="utf-8")


def _front_matter(title: str, config: FusarConfig, about: Publication) -> str:
  fields: dict[str, Any] = {
    "library_name": "peft" if about.adapter else "transformers",
    "pipeline_tag": "image-text-to-text",
    "tags": list(_TAGS[: None if config.tlm else -1]),
  }
  if licence := _licence(about):
    fields["license"] = licence
  if about.base_id:
    fields["base_model"] = about.base_id
    fields["base_model_relation"] = "adapter" if about.adapter else "finetune"
  if about.scores and (results := _results(about.scores)):
    fields["model-index"] = [{"name": title, "results": results}]
  # A JSON value is one of YAML; unquoted, a text may be a number or a comment.
  return "".join(
    f"{name}: {json.dumps(value)}\n" for name, value in fields.items()
  )


def _licence(about: Publication) -> str | None:
  """Returns the base's licence, unless data or adapter have other terms.

  The hub shows it as the licence of the weights, which those terms may limit.
  """
  base = about.terms.identifier
  others = {terms.lower() for _, terms in _data(about.record)}
  if about.applied:
    others.add(str(about.applied.identifier).lower())
  return base if base and others <= {base.lower()} else None


def _line(value: Any) -> str:
  """Returns text of others as one line without markup."""
  text = " ".join(str(value).split())
  text = text if len(text) <= _MAX_LINE else f"{text[: _MAX_LINE - 3]}..."
  return re.sub(r"([\\`*\[\]<>|])", r"\\\1", text)


def _results(scores: Scores) -> list[dict]:
  by_task: dict[str, list[dict]] = {}
  for row in scores.rows:
    if row.n < _FEW:
      continue
    metric = {"type": row.name, "name": row.name, "value": round(row.value, 4)}
    by_task.setdefault(row.task, []).append(metric)
  return [
    {
      "task": {"type": "image-text-to-text", "name": task},
      # "type" is the id of a data set on the hub, and must be there.
      "dataset": {"name": scores.split, "type": "custom"},
      "metrics": metrics,
    }
    for task, metrics in by_task.items()
  ]


def _kind(config: FusarConfig, about: Publication) -> str:
  if config.tlm is None:
    return "It takes no AlphaEarth anchors."
  return (
    "A vision-language model for Synthetic Aperture Radar (SAR) images whose"
    " visual tokens AlphaEarth anchors modulate (Token-wise Linear Modulation,"
    f" TLM): `{tlm_file.WEIGHTS}` and `{tlm_file.SETTINGS}`."
  )


def _origin(
  about: Publication,
) -> Iterator[str]:
  """Base, step and data, as the run's record has them."""
  record = about.record
  if record is None:
    if about.base_id:
      yield f"- base: {about.base_id}"
    return
  base = record["base"]
  name = about.base_id or _line(base["path"] or "random weights")
  digest = f" (sha256 {_line(base['sha256'])})" if base["sha256"] else ""
  yield f"- base: {name}{digest}"
  yield f"- step: {record['step']}"
  for source, terms in _data(record):
    yield f"- training data: {_line(source)} ({_line(terms)})"
  yield f"- everything else: `{RECORD}`"


def _data(record: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
  """Yields (source, licence) of the training manifests."""
  for manifest in record["data"].get("train", []) if record else ():
    described = manifest["dataset"] or {}
    source = described.get("source") or manifest["path"]
    yield str(source), str(described.get("license") or "terms not recorded")


def _scores(scores: Scores | None) -> Iterator[str]:
  if scores is None:
    return
  lines = [
    "## Scores",
    "",
    f"On {_line(scores.split)}, scorer {_line(scores.version)}; 95 % intervals."
    " Baseline: the strongest one, with the p value of the paired test; empty:"
    " no test.",
    *_few(scores),
    "",
    "| task | score | value | 95 % interval | n | baseline |",
    "| --- | --- | --: | --: | --: | --- |",
  ]
  lines += [
    f"| {_line(row.task)} | {_line(row.name)} | {row.value:.3f} |"
    f" {row.low:.3f} - {row.high:.3f} | {row.n} | {_line(row.baseline)} |"
    for row in scores.rows
  ]
  yield "\n".join(lines)


def _few(scores: Scores) -> Iterator[str]:
  if any(row.n < _FEW for row in scores.rows):
    yield (
      f"Scores of fewer than {_FEW} rows show little, and are not in this"
      " page's metadata."
    )


def _use(config: FusarConfig, about: Publication) -> str:
  tlm, size = config.tlm is not None, config.image_size
  text = _OURS.format(
    with_tlm=", TLM included" if tlm else "",
    folder='"BASE", adapter="FOLDER"' if about.adapter else '"FOLDER"',
    anchors=', anchors="scene.npz"' if tlm else "",
  )
  if about.adapter:
    note = (
      " This runs the adapter's two .py files: read them first." if tlm else ""
    )
    body = _ADAPTER_TLM if tlm else _ADAPTER_PLAIN
    return text + _ADAPTER.format(tlm=note, body=body)
  if tlm:
    text += _ANCHORS
  return text + _PLAIN.format(
    without_tlm=", which gives the model without TLM" if tlm else "",
    resize=_RESIZE.format(height=size[0], width=size[1]) if size else "",
  )


def _changes(config: FusarConfig, about: Publication) -> str:
  lora, lines = config.lora, ["## What was changed", ""]
  if lora.rank:
    where = ", ".join([*lora.language, *(f"vision {n}" for n in lora.vision)])
    lines.append(
      f"- LoRA of rank {lora.rank}, alpha {lora.alpha:g}, on {where}"
      + ("" if about.adapter else "; merged into the weights in float32")
    )
  if config.tlm:
    lines.append(
      f"- a TLM after the patch merger: sigma {config.tlm.sigma:g} patches,"
      f" {config.tlm.bands} bands"
    )
  if about.record and not lora.rank:
    lines.append(f"- weights, as the config in `{RECORD}` says")
  lines.append("- the chat template: fusar_jax's prompt, as in its training")
  return "\n".join(lines)


def _limits(config: FusarConfig, about: Publication) -> str:
  lines = ["## Limits", ""]
  if config.image_size:
    height, width = config.image_size
    lines.append(
      f"- images are resized to {height} x {width} pixels, the aspect is not"
      " kept; boxes are pixels of the resized image"
    )
  lines += [
    "- 8-bit images, stretched as the training images were; no videos",
    "- answers can be wrong: "
    + (
      "look at the scores, and at their intervals, before relying on them"
      if about.scores
      else "no scores are recorded here; evaluate it on your own images"
    ),
  ]
  if config.tlm:
    lines.append("- without anchors an image is not modulated")
  return "\n".join(lines)


def _licences(config: FusarConfig, about: Publication) -> Iterator[str]:
  yield "## Licences"
  yield ""
  terms = about.terms
  files = ", ".join(f"`{path.name}`" for path in terms.files)
  if terms.identifier or files:
    yield f"- base model: {terms.identifier or 'see'} {files}".rstrip()
  else:
    yield (
      "- base model: its licence is not known here, because its folder states"
      " none; look it up before you use or publish this model"
    )
  if terms.identifier and _licence(about) is None:
    yield (
      "- these weights: not stated, since the training data or the adapter have"
      " other terms, or none on record; who publishes them decides, by"
      " `license:` on top of this file"
    )
  if config.tlm:
    yield f"- anchors: CC-BY 4.0. {ATTRIBUTION}"
    yield "- `modeling_fusar_gpt.py`, `processing_fusar_gpt.py`: Apache-2.0"
