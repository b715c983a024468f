"""The PyTorch code that exports with a TLM carry, for `trust_remote_code`.

transformers loads it only when asked to; otherwise the folder is a plain
Qwen2.5-VL. The files are this package's own, and import torch, transformers,
numpy and Pillow alone, so that users of an export need no fusar_jax.
"""

import shutil
from pathlib import Path

_FILES = Path(__file__).resolve().parent.parent / "assets" / "remote_code"

# Of config.json and preprocessor_config.json: Auto class -> file.class.
MODEL_MAP = {
  "AutoModelForImageTextToText": (
    "modeling_fusar_gpt.FusarGPTForConditionalGeneration"
  )
}
PROCESSOR_MAP = {"AutoProcessor": "processing_fusar_gpt.FusarGPTProcessor"}


def write_remote_code(folder: Path) -> None:
  """Copies the files into a folder that exists."""
  for path in sorted(_FILES.glob("*.py")):
    shutil.copyfile(path, Path(folder) / path.name)
