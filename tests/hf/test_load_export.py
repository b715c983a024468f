"""Bit-exact round trips of folders in all layouts, and errors by file name."""

import dataclasses
import json
import os
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fusar_jax.hf import mapping
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.load import load_base
from fusar_jax.hf.weights import INDEX, SINGLE, Lazy, Weights, save
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.lora import merge_lora
from fusar_jax.model.paths import flatten


def _rewrite(folder, change):
  """Lets `change` edit the dict of tensors of a single-file folder."""
  tensors = load_file(folder / SINGLE)
  tensors = change(tensors) or tensors
  save_file(tensors, folder / SINGLE)


@pytest.fixture
def base(tmp_path, plain, rand):
  """(folder, parameters) of a plain exported model."""
  params = rand(plain)
  export_merged(tmp_path / "base", plain, params)
  return tmp_path / "base", params


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip_is_bitwise(tmp_path, plain, rand, same, tied, dtype):
  decoder = dataclasses.replace(plain.decoder, tie_word_embeddings=tied)
  config = dataclasses.replace(plain, decoder=decoder)
  params = rand(config, dtype=dtype)
  export_merged(tmp_path / "out", config, params)
  read_config, read = load_base(tmp_path / "out")
  assert read_config == config
  assert ("lm_head" in read) is not tied
  same(read, params)


def test_a_merged_model_keeps_its_tlm(tmp_path, config, rand, same):
  params = rand(config)
  done = export_merged(tmp_path / "out", config, params)
  read_config, read = load_base(tmp_path / "out")
  assert read_config == dataclasses.replace(config, lora=LoRAConfig())
  assert done.rounding == 0.0
  same(read, merge_lora(params, config.lora.scale))
  # The merge is kernel + alpha / rank * A B.
  old = params["model"]["layers"]["mlp"]["up_proj"]
  new = read["model"]["layers"]["mlp"]["up_proj"]
  product = np.einsum("nir,nro->nio", old["lora_a"], old["lora_b"])
  assert set(new) == {"kernel"}
  np.testing.assert_allclose(
    new["kernel"], old["kernel"] + 4.0 * product, atol=1e-5
  )


def test_shards_hold_what_one_file_holds(tmp_path, plain, rand, same):
  params = rand(plain)
  done = export_merged(tmp_path / "out", plain, params, max_shard_bytes=100_000)
  assert len(done.files) > 1
  for name in done.files:
    arrays = load_file(tmp_path / "out" / name)
    assert sum(a.nbytes for a in arrays.values()) <= 100_000
  index = json.loads((tmp_path / "out" / INDEX).read_text())
  assert set(index["weight_map"].values()) == set(done.files)
  assert index["metadata"]["total_size"] == 4 * done.parameters
  same(load_base(tmp_path / "out")[1], params)


@pytest.mark.parametrize(
  "spell",
  [
    mapping.canonical,
    lambda name: f"base_model.model.{name}",
    lambda name: mapping.peft_name(mapping.canonical(name)).replace(
      "_proj.weight", "_proj.base_layer.weight"
    ),
  ],
  ids=["nested", "peft", "peft base_layer"],
)
def test_every_layout_reads_the_same(base, same, spell):
  folder, params = base
  _rewrite(folder, lambda tensors: {spell(n): a for n, a in tensors.items()})
  same(load_base(folder)[1], params)


def test_a_tied_model_may_store_its_head(tmp_path, plain, rand, same):
  decoder = dataclasses.replace(plain.decoder, tie_word_embeddings=True)
  config = dataclasses.replace(plain, decoder=decoder)
  params = rand(config)
  export_merged(tmp_path / "out", config, params)
  head = params["model"]["embed_tokens"]["embedding"].copy()
  _rewrite(tmp_path / "out", lambda t: t | {"lm_head.weight": head})
  same(load_base(tmp_path / "out")[1], params)
  head[3, 3] += 1
  _rewrite(tmp_path / "out", lambda t: t | {"lm_head.weight": head})
  with pytest.raises(ValueError, match="differs from"):
    load_base(tmp_path / "out")


def test_all_differences_are_listed_together(base):
  folder, _ = base

  def damage(tensors):
    tensors["visual.blocks.7.norm1.weight"] = np.zeros(16, np.float32)
    tensors["model.visual.merger.ln_q.weight"] = np.zeros(16, np.float32)
    tensors["model.norm.weight"] = np.zeros(33, np.float32)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    del tensors["lm_head.weight"]

  _rewrite(folder, damage)
  with pytest.raises(ValueError) as error:
    load_base(folder)
  text = str(error.value)
  for line in (
    "(5 of 69 keys)",
    "- missing     model/layers/1/mlp/down_proj/kernel   [32, 40]",
    "- missing     lm_head/kernel   [64, 32]",
    "+ unexpected  visual.blocks.7.norm1.weight   [16]",
    "! differs     model.norm.weight   [33], expected [32]",
    "= duplicate   ",
  ):
    assert line in text, text


def test_dtype_is_converted(base):
  folder, params = base
  _, read = load_base(folder, dtype=jnp.bfloat16)
  leaf = read["model"]["layers"]["mlp"]["up_proj"]["kernel"]
  want = params["model"]["layers"]["mlp"]["up_proj"]["kernel"]
  np.testing.assert_array_equal(leaf, want.astype(ml_dtypes.bfloat16))
  assert {a.dtype for a in jax.tree.leaves(read)} == {jnp.bfloat16.dtype}


def test_sharded_reading_cuts_each_device_its_part(base, same):
  """Split over layers, rows, columns and the patch matrix: the same bits."""
  folder, params = base
  mesh = jax.make_mesh((2, 2, 2), ("a", "b", "c"))
  asked = {}

  def rule(path, shape):
    spec = [
      axis if n % 2 == 0 else None
      for axis, n in zip(("a", "b", "c"), shape, strict=False)
    ]
    asked[path] = jax.sharding.NamedSharding(
      mesh, jax.sharding.PartitionSpec(*spec)
    )
    return asked[path]

  _, read = load_base(folder, sharding=rule)
  same(read, params)
  for path, leaf in flatten(read).items():
    assert leaf.sharding == asked[path]
  kernel = read["model"]["layers"]["mlp"]["up_proj"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (1, 16, 20)


def test_the_library_reads_what_we_write(tmp_path):
  """Of any layout in memory, one tensor in memory at a time."""
  values = np.arange(12, dtype=np.float32).reshape(3, 4)
  alive, most = [], []

  def read():
    alive.append(1)
    array = np.ones((2, 5), ml_dtypes.bfloat16)
    weakref.finalize(array, alive.pop)
    most.append(len(alive))
    return array

  lazy = Lazy((2, 5), np.dtype(ml_dtypes.bfloat16), read)
  arrays = {"b": values.T, "a": np.float16(values[:, ::2]), "d": values[:0]}
  save(tmp_path / SINGLE, arrays | {"c": lazy, "e": lazy, "f": lazy})
  found = load_file(tmp_path / SINGLE)
  assert set(found) == {*"abcdef"}
  for name, array in arrays.items():
    assert found[name].dtype == array.dtype
    np.testing.assert_array_equal(found[name], array)
  np.testing.assert_array_equal(found["c"], lazy.read())
  assert most[:3] == [1, 1, 1]
  with pytest.raises(ValueError, match=r"x has dtype int32; expected one of"):
    save(tmp_path / "wrong", {"x": np.zeros(2, np.int32)})
  assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("keep", [4, 100, 20_000])
def test_a_truncated_file_is_named(base, keep):
  folder, _ = base
  path = folder / SINGLE
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(ValueError, match=r"model\.safetensors: truncated"):
    load_base(folder)


def test_a_file_without_permission_is_not_called_missing(tmp_path):
  """Tests that run as root, who reads all, become another user for a moment."""
  path = tmp_path / SINGLE
  save_file({"a": np.zeros(1)}, path)
  path.chmod(0)
  user = os.geteuid()
  try:
    os.seteuid(user or 65534)
    with pytest.raises(PermissionError, match=SINGLE):
      Weights([path])
  finally:
    os.seteuid(user)


def test_a_missing_shard_is_named(tmp_path, plain, rand):
  export_merged(tmp_path / "o", plain, rand(plain), max_shard_bytes=100_000)
  (tmp_path / "o" / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match="model-00002-of-00003"):
    load_base(tmp_path / "o")


def test_quantised_weights_raise(base):
  folder, _ = base

  def quantise(tensors):
    tensors["lm_head.weight"] = tensors["lm_head.weight"].astype(np.int8)

  _rewrite(folder, quantise)
  with pytest.raises(ValueError, match=r"lm_head\.weight has dtype I8"):
    load_base(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_weights_that_are_not_finite_raise(base, value, dtype):
  folder, _ = base

  def spoil(tensors):
    tensors = {name: array.astype(dtype) for name, array in tensors.items()}
    tensors["lm_head.weight"][3, 2] = value
    return tensors

  _rewrite(folder, spoil)
  with pytest.raises(
    ValueError, match=r"lm_head\.weight holds NaN or infinity"
  ):
    load_base(folder)


def test_nothing_is_half_written(tmp_path, plain, rand):
  """A full folder, parameters of another config, a missing tokenizer."""
  params = rand(plain)
  export_merged(tmp_path / "full", plain, params)
  before = {p.name: p.read_bytes() for p in (tmp_path / "full").iterdir()}
  with pytest.raises(FileExistsError, match="not empty"):
    export_merged(tmp_path / "full", plain, rand(plain, seed=1))
  assert before == {
    p.name: p.read_bytes() for p in (tmp_path / "full").iterdir()
  }
  del params["lm_head"]
  with pytest.raises(ValueError, match="- missing     lm_head/kernel"):
    export_merged(tmp_path / "out", plain, params)
  with pytest.raises(FileNotFoundError, match="no tokenizer here"):
    export_merged(tmp_path / "out", plain, rand(plain), tokenizer=tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_golden_base_comes_back_byte_for_byte(golden, tmp_path, same):
  """transformers' own file -> parameters -> our file: the same tensors."""
  source = golden / "official_tiny" / "base"
  config, params = load_base(source)
  export_merged(tmp_path / "out", config, params)
  theirs, ours = (load_file(f / SINGLE) for f in (source, tmp_path / "out"))
  same(ours, theirs)
  assert load_base(tmp_path / "out")[0] == config
