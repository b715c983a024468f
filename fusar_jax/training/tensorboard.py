"""tensorboardX's SummaryWriter, imported without PyTorch.

tensorboardX imports torch where it is installed, for tensors that are never
given to it here. That takes seconds of each start and hundreds of MB.
"""

import sys

_torch = sys.modules.get("torch")
if _torch is None:
  # None makes `import torch` raise ImportError; typeshed has modules only.
  sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
try:
  from tensorboardX import SummaryWriter
finally:
  if _torch is None:
    del sys.modules["torch"]

__all__ = ["SummaryWriter"]
