"""tensorboardX's SummaryWriter, imported without PyTorch.

tensorboardX imports torch where it is installed, for tensors that are never
given to it here. That takes seconds of each start and hundreds of MB.
"""

import sys

_torch = sys.modules.get("torch")
if _torch is None:
  sys.modules["torch"] = None  # `import torch` raises ImportError.
try:
  from tensorboardX import SummaryWriter
finally:
  if _torch is None:
    del sys.modules["torch"]

__all__ = ["SummaryWriter"]
