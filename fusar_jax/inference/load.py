"""Loads runs, Hugging Face folders and adapters as an `Assistant`."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp

from fusar_jax.data.tokenizer import Tokenizer, load_tokenizer
from fusar_jax.hf.folders import local_model, resolve
from fusar_jax.hf.generation_config import GenerationDefaults
from fusar_jax.hf.load import load_adapted, restrict
from fusar_jax.hf.weights import weight_files
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.mesh import MeshLike, make_mesh
from fusar_jax.inference.options import DTYPES
from fusar_jax.inference.quantized import (
  check_format,
  read_placement,
  weight_bytes,
)
from fusar_jax.model.quantization import quantize_layers
from fusar_jax.platforms import check_platforms
from fusar_jax.training import device_mesh, provenance, sharding
from fusar_jax.training.parameters import load_run, read_shapes


def load(
  path: str | os.PathLike,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  *,
  use_tlm: bool = True,
  image_size: int | None = None,
  mesh: MeshLike = device_mesh.AUTO,
  dtype: str | None = None,
  quantize: str | None = None,
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
    mesh: devices, see `inference.mesh.make_mesh`: "auto" splits the weights
      where they do not fit one device; "1,1,4" over four devices; None: one.
    dtype: of activations, "float32" or "bfloat16"; None: float32 on a CPU,
      elsewhere that of the weights. Weights keep the dtype of their files.
    quantize: "int8" or "nf4": format of the kernels of tower's and decoder's
      layers, as `config.dtype.frozen` of training; they are quantised on the
      host, one stack of layers after another. None: as in the files.

  Raises:
    ValueError, FileNotFoundError: invalid arguments or files; the message names
      the file and the fix.
  """
  check_platforms()
  activations = _compute_dtype(dtype)
  check_format(quantize)
  path = local_model(path)
  run = (Path(path) / "checkpoints").is_dir()
  folder = Path(path) if run else resolve(path)
  mesh = make_mesh(
    mesh, lambda: (read_shapes(folder), _weight_bytes(folder, quantize))
  )
  place = None if mesh is None else sharding.placement(mesh)
  place = read_placement(quantize, place)
  if run:
    if adapter is not None:
      raise ValueError(
        f"{path} is a run, which includes its adapter; give a Hugging Face"
        f" folder as the base of {adapter}."
      )
    config, params, tokens, _ = load_run(folder, placement=place)
    config, params = restrict(
      config, params, use_tlm=use_tlm, image_size=image_size
    )
    tokenizer = load_tokenizer(tokens)
    base = provenance.base_folder(folder)
    generation = GenerationDefaults.read(base) if base else None
  else:
    config, params = load_adapted(
      folder,
      adapter,
      legacy_sigma,
      use_tlm=use_tlm,
      image_size=image_size,
      sharding=place,
    )
    places = [p for p in (adapter, folder) if p is not None]
    tokenizer = _find_tokenizer(places)
    generation = GenerationDefaults.read(folder)
  if quantize is not None:
    params = quantize_layers(params, quantize)
  if mesh is not None:  # leaves of adapters and checkpoints
    params = sharding.put(params, sharding.parameter_shardings(params, mesh))
  elif quantize is not None:
    params = jax.device_put(params, jax.local_devices()[0])
  return Assistant(config, params, tokenizer, activations, generation, mesh)


def _compute_dtype(value: str | None) -> jnp.dtype | None:
  if value is None:
    return None
  if value not in DTYPES:
    raise ValueError(f"dtype {value!r}: expected one of {', '.join(DTYPES)}.")
  return jnp.dtype(value)


def _weight_bytes(folder: Path, quantize: str | None) -> int:
  """Returns the bytes of a model's weights, of LoRA and TLM in their dtype."""
  config, base = read_shapes(folder), folder
  if provenance.is_run(folder):
    base = provenance.base_folder(folder)
  dtype = "float32"  # Of a run without a base: all is in its checkpoint.
  if base is not None:
    files = sum(file.stat().st_size for file in weight_files(base))
    if files < 3 * weight_bytes(config, "int8"):
      dtype = "bfloat16"
  return weight_bytes(config, dtype, quantize)


def _find_tokenizer(folders) -> Tokenizer | None:
  """Returns the first tokenizer, or None; `ask` then raises ValueError."""
  for folder in folders:
    if any(
      (Path(folder) / name).is_file()
      for name in ("tokenizer.json", "tokenizer.model")
    ):
      return load_tokenizer(folder)
  return None
