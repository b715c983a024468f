"""Loads runs, Hugging Face folders and adapters as an `Assistant`."""

import os
from pathlib import Path

from fusar_jax.data.tokenizer import Tokenizer, load_tokenizer
from fusar_jax.hf.folders import resolve
from fusar_jax.hf.generation_config import GenerationDefaults
from fusar_jax.hf.load import load_adapted, restrict
from fusar_jax.inference.assistant import Assistant
from fusar_jax.platforms import check_platforms
from fusar_jax.training import provenance
from fusar_jax.training.parameters import load_run


def load(
  path: str | os.PathLike,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  *,
  use_tlm: bool = True,
  image_size: int | None = None,
) -> Assistant:
  """Loads a run folder, a Hugging Face folder or a hub id.

  Decoding uses the `generation_config.json` of the folder, or of the run's base
  folder, see `GenerationDefaults`.

  Args:
    path: folder of `fusar_jax.train`, folder with `config.json` and
      safetensors, or a hub id (needs a network).
    adapter: folder in the official format (PEFT LoRA, `vec64_film.pt`,
      `tlm_config.json`, or `image_text_config.json` without TLM), applied to
      the base in `path`.
    legacy_sigma: sigma of an adapter folder without `tlm_config.json`; 2 for
      the weights released before it.
    use_tlm: False loads base and LoRA only, as the official script without
      anchors does.
    image_size: side in pixels, a multiple of 28, to which images are resized
      (square, as in the official code), for a model whose files record no size.

  Raises:
    ValueError, FileNotFoundError: invalid arguments or files; the message names
      the file and the fix.
  """
  check_platforms()
  if (Path(path) / "checkpoints").is_dir():
    if adapter is not None:
      raise ValueError(
        f"{path} is a run, which includes its adapter; give a Hugging Face"
        f" folder as the base of {adapter}."
      )
    config, params, tokenizer, _ = load_run(path)
    config, params = restrict(
      config, params, use_tlm=use_tlm, image_size=image_size
    )
    base = provenance.base_folder(Path(path))
    return Assistant(
      config,
      params,
      load_tokenizer(tokenizer),
      generation=GenerationDefaults.read(base) if base else None,
    )
  folder = resolve(path)
  config, params = load_adapted(
    folder, adapter, legacy_sigma, use_tlm=use_tlm, image_size=image_size
  )
  places = [p for p in (adapter, folder) if p is not None]
  return Assistant(
    config,
    params,
    _find_tokenizer(places),
    generation=GenerationDefaults.read(folder),
  )


def _find_tokenizer(folders) -> Tokenizer | None:
  """Returns the first tokenizer, or None; `ask` then raises ValueError."""
  for folder in folders:
    if any(
      (Path(folder) / name).is_file()
      for name in ("tokenizer.json", "tokenizer.model")
    ):
      return load_tokenizer(folder)
  return None
