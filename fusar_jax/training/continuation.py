"""LoRA and TLM that a run continues from its base or adapter.

The weights determine which projections have LoRA: released stage-1 adapters
also have vision LoRA, and training continues it, as in the official code. Rank
and alpha must match the config. A run without TLM takes only the LoRA.
"""

import dataclasses
from pathlib import Path

from absl import logging

from fusar_jax import config as config_lib
from fusar_jax.hf import tlm_file
from fusar_jax.hf.peft import read_adapter, read_lora
from fusar_jax.model.config import FusarConfig, LoRAConfig
from fusar_jax.training import partition, provenance
from fusar_jax.training.provenance import Source
from fusar_jax.training.run_config import RunConfig


def continued(
  model: FusarConfig,
  base: Source,
  adapter: Source,
  config: RunConfig,
  workdir: Path,
) -> FusarConfig:
  """Returns the model with the LoRA projections of the continued weights.

  Args:
    model: from the config, shapes resolved.
    base, adapter: sources of the weights; LoRA and TLM of the adapter take
      precedence over those of the base.
    config: config of the run.
    workdir: folder of the run, to resolve relative sources.

  Raises:
    ValueError: rank, alpha or explicitly configured projections differ, or
      the TLM would stay random.
  """
  sources = [
    _Existing.of(source, workdir)
    for source in (base, adapter)
    if source.kind != "random"
  ]
  for found in sources:
    if found.lora is not None:
      lora = _continued_lora(model, found.lora, found.name)
      model = dataclasses.replace(model, lora=lora)
    if found.has_tlm and model.tlm is None:
      logging.warning(
        "%s: its TLM is not used, config.model.tlm is None", found.name
      )
  if model.tlm is not None and sources:
    _check_tlm(config, [found for found in sources if found.has_tlm])
  return model


@dataclasses.dataclass(frozen=True)
class _Existing:
  """LoRA and TLM of a source, beyond a plain Qwen2.5-VL."""

  name: str
  lora: LoRAConfig | None
  has_tlm: bool

  @classmethod
  def of(cls, source: Source, workdir: Path):
    # Weights are verified when they are read.
    folder = provenance.find(source, workdir)
    if source.kind == "run":
      model = provenance.read_model_config(folder)
      lora = model.lora if model.lora.rank else None
      return cls(source.path, lora, model.tlm is not None)
    lora = read_lora(folder)
    return cls(source.path, lora, tlm_file.has_tlm(folder))


def _continued_lora(
  model: FusarConfig, theirs: LoRAConfig, where: str
) -> LoRAConfig:
  ours, default = model.lora, LoRAConfig()
  fields = [name for name in ("rank", "alpha") if _differs(ours, theirs, name)]
  # Projections at their default follow the source.
  fields += [
    name
    for name in ("language", "vision")
    if _differs(ours, theirs, name) and _differs(ours, default, name)
  ]
  if fields:
    lines = [
      f"  config.model.lora.{name} is {getattr(ours, name)}, there it is"
      f" {getattr(theirs, name)}"
      for name in fields
    ]
    raise ValueError(
      f"{where}: the LoRA to continue is another one:\n"
      + "\n".join(lines)
      + "\nSet these fields to its values."
    )
  if theirs.vision and not ours.vision:
    logging.warning("%s: its vision LoRA is continued, too", where)
  return dataclasses.replace(
    ours, language=theirs.language, vision=theirs.vision
  )


def _differs(one: LoRAConfig, other: LoRAConfig, name: str) -> bool:
  return getattr(one, name) != getattr(other, name)


def _check_tlm(config: RunConfig, with_tlm: list[_Existing]) -> None:
  """Rejects a frozen random TLM: it would distort every visual token."""
  paths = ("tlm/mlp_0/kernel", "tlm/mlp_2/kernel")
  rules = [
    (partition.compiled(regex, "config.trainable"), trains)
    for regex, trains in config.trainable
  ]
  trained = any(
    next((trains for rule, trains in rules if rule.fullmatch(path)), True)
    for path in paths
  )
  if not with_tlm and not trained and config.data.anchors != "none":
    raise ValueError(
      "neither config.init nor config.adapter has a TLM, and config.trainable"
      " freezes it: it would stay random. Start from a stage-1 run or adapter;"
      " to train without anchors and TLM, use configs/no_aef.py."
    )


def read_adapter_leaves(folder: Path, config: FusarConfig) -> partition.Params:
  """Returns an adapter's leaves for a run: LoRA, and TLM if the config has one.

  Raises:
    ValueError: LoRA, TLM or image size differ from the config; lists all.
  """
  plain = dataclasses.replace(config, lora=LoRAConfig())
  use_tlm = config.tlm is not None
  sigma = None
  if config.tlm is not None and tlm_file.is_legacy(folder):
    sigma = config.tlm.sigma  # Legacy folders do not record sigma.
  found, leaves = read_adapter(folder, plain, sigma, use_tlm=use_tlm)
  expected = config_lib.to_dict(config)
  theirs = config_lib.to_dict(found)
  problems = [
    f"  config.model.{part}.{name} is {expected[part][name]}, the adapter has"
    f" {value}"
    for part in ("lora", "tlm")
    for name, value in (theirs[part] or {}).items()
    # Each stage sets its own dropout.
    if name != "dropout" and (expected[part] or {}).get(name) != value
  ]
  if found.image_size != config.image_size:
    problems.append(
      f"  config.model.image_size is {config.image_size}, the adapter has"
      f" {found.image_size}"
    )
  if problems:
    raise ValueError(
      f"{folder}: the adapter does not fit the model:\n"
      + "\n".join(problems)
      + "\nSet these fields to the adapter's values."
    )
  return leaves
