"""README.md of an exported folder: what it is, what it comes from, how to load.

The hub shows it as the model's page. Its Python block is run by a test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.hf import tlm_file
from fusar_jax.hf.folders import RECORD
from fusar_jax.model.config import FusarConfig

CARD = "README.md"

_HEAD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
---
# {title}

Exported by fusar_jax. {about}

{origin}## Loading

With fusar_jax{with_tlm}:

```text
model = fusar_jax.load("FOLDER")
model.ask("scene.png", "How many ships are in the image?"{anchors})
```

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


def write_model_card(
  folder: Path, config: FusarConfig, record: Mapping[str, Any] | None
) -> None:
  """Writes README.md into a folder that exists.

  Args:
    folder: to write to.
    config: of the exported model.
    record: of the run that the weights come from, or None.
  """
  size, tlm = config.image_size, config.tlm is not None
  text = _HEAD.format(
    title="FUSAR-GPT" if tlm else "Qwen2.5-VL for SAR images",
    about=(
      f"`{tlm_file.WEIGHTS}` and `{tlm_file.SETTINGS}` hold its Token-wise"
      " Linear Modulation by AlphaEarth anchors (TLM), which transformers"
      " does not know."
      if tlm
      else "It takes no AlphaEarth anchors."
    ),
    origin=_origin(record),
    with_tlm=", TLM included" if tlm else "",
    anchors=', anchors="scene.npz"' if tlm else "",
    without_tlm=(
      ", which gives the model without TLM unless it is handed modulated"
      " tokens (docs/export.md of fusar_jax)"
      if tlm
      else ""
    ),
    resize=_RESIZE.format(height=size[0], width=size[1]) if size else "",
  )
  (Path(folder) / CARD).write_text(text, encoding="utf-8")


def _origin(record: Mapping[str, Any] | None) -> str:
  """Base, data and licences, as the run's record has them."""
  if record is None:
    return ""
  base = record["base"]
  lines = [
    f"- base: {base['path'] or 'random weights'}"
    + (f" (sha256 {base['sha256']})" if base["sha256"] else ""),
    f"- step: {record['step']}",
  ]
  for manifest in record["data"].get("train", []):
    about = manifest["dataset"] or {}
    source = about.get("source") or manifest["path"]
    terms = about.get("license") or "terms not recorded"
    lines.append(f"- training data: {source} ({terms})")
  lines.append(f"- everything else: `{RECORD}`")
  return "\n".join(lines) + "\n\n"
