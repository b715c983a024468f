"""Checks that config numbers are positive, before any input is read.

A negative learning rate or alpha would train without an error, and diverge.
"""

from ml_collections import ConfigDict

_POSITIVE = (
  "batch_size",
  "accumulation",
  "optimizer.learning_rate",
  "data.max_length",
)


def check_numbers(config: ConfigDict) -> None:
  """Raises ValueError that lists every number out of its range."""
  values = {name: _value(config, name) for name in _POSITIVE}
  model = config.model
  if not config.steps:
    values["epochs"] = config.epochs
  if model.lora.rank:
    values["model.lora.rank"] = model.lora.rank
    values["model.lora.alpha"] = model.lora.alpha
  if model.tlm is not None:
    values["model.tlm.sigma"] = model.tlm.sigma
  if model.image_size is not None:
    values["model.image_size"] = min(model.image_size)
  wrong = [
    f"  config.{name} is {value}"
    for name, value in values.items()
    if not value > 0  # NaN is not, either.
  ]
  if config.steps < 0:
    wrong.append(f"  config.steps is {config.steps}; 0 leaves it to epochs")
  if wrong:
    raise ValueError("expected positive numbers:\n" + "\n".join(wrong))


def _value(config: ConfigDict, name: str):
  for part in name.split("."):
    config = config[part]
  return config
