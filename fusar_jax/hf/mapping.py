"""Two-way mapping between published parameter names and the parameter tree.

Published names are those of transformers' Qwen2.5-VL modules, in three layouts;
`canonical` converts each to the first:
  model.visual.* , model.language_model.* , lm_head     (transformers in memory)
  visual.*       , model.*                , lm_head     (files on the hub)
  base_model.model.<either>                             (peft)
Our path follows the same names (`model.visual.blocks.*.norm1` is
`visual/blocks/norm1`); the layers of a scan are stacked on axis 0, and kernels
are [in, out] where torch keeps [out, in].

C visual token width, D model width, F feed-forward width, R LoRA rank, V vocab.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from fusar_jax.model.config import FusarConfig

# Transforms from a published array to a leaf.
SAME = "same"
TRANSPOSE = "transpose"
PATCHES = "patches"


@dataclasses.dataclass(frozen=True)
class Module:
  """One module of the table; kind and sizes determine its tensors.

  Attributes:
    name: published name, `*` where the layer's index stands.
    path: our path.
    kind: "norm", "dense", "embedding" or "patches".
    sizes: of a norm (D,), of a dense (in, out), of an embedding (V, D), of the
      patch convolution (temporal, channels, side, side, D).
    bias: a dense with a bias.
    layers: number of stacked layers, None outside a scan.
    lora: whether the config puts an adapter here.
  """

  name: str
  path: str
  kind: str
  sizes: tuple[int, ...]
  bias: bool = False
  layers: int | None = None
  lora: bool = False


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One published tensor and its place in our tree.

  Attributes:
    name: canonical published name.
    path: our leaf, e.g. `model/layers/mlp/down_proj/kernel`.
    layer: its row in a stacked leaf, None where nothing is stacked.
    transform: SAME, TRANSPOSE or PATCHES.
    shape: published shape.
  """

  name: str
  path: str
  layer: int | None
  transform: str
  shape: tuple[int, ...]

  @property
  def layer_path(self) -> str:
    """Our path with the layer's index, as errors print it."""
    if self.layer is None:
      return self.path
    return re.sub(r"(layers|blocks)/", rf"\1/{self.layer}/", self.path, count=1)


def modules(config: FusarConfig) -> tuple[Module, ...]:
  """Returns the table for a model of that config (the TLM is not part of it:
  it is published separately, see `tlm_file`)."""
  v, d, lora = config.vision, config.decoder, config.lora
  merged = v.hidden_size * v.merge**2
  queries, keys = d.heads * d.head_dim, d.kv_heads * d.head_dim

  def block(tail, *sizes, bias=False):
    return _module(
      "model.visual.blocks.*.", "visual/blocks/", tail, sizes, bias, v.depth,
      lora.vision if lora.rank else (),
    )  # fmt: skip

  def layer(tail, *sizes, bias=False):
    return _module(
      "model.language_model.layers.*.", "model/layers/", tail, sizes, bias,
      d.layers, lora.language if lora.rank else (),
    )  # fmt: skip

  table = (
    Module(
      "model.visual.patch_embed.proj",
      "visual/patch_embed",
      "patches",
      (v.temporal, 3, v.patch, v.patch, v.hidden_size),
    ),
    block("norm1", v.hidden_size),
    block("norm2", v.hidden_size),
    block("attn.qkv", v.hidden_size, 3 * v.hidden_size, bias=True),
    block("attn.proj", v.hidden_size, v.hidden_size, bias=True),
    block("mlp.gate_proj", v.hidden_size, v.intermediate_size, bias=True),
    block("mlp.up_proj", v.hidden_size, v.intermediate_size, bias=True),
    block("mlp.down_proj", v.intermediate_size, v.hidden_size, bias=True),
    Module(
      "model.visual.merger.ln_q", "visual/merger/ln_q", "norm", (v.hidden_size,)
    ),
    Module(
      "model.visual.merger.mlp.0",
      "visual/merger/mlp_0",
      "dense",
      (merged, merged),
      bias=True,
    ),
    Module(
      "model.visual.merger.mlp.2",
      "visual/merger/mlp_2",
      "dense",
      (merged, v.out_width),
      bias=True,
    ),
    Module(
      "model.language_model.embed_tokens",
      "model/embed_tokens",
      "embedding",
      (d.vocab, d.hidden_size),
    ),
    layer("input_layernorm", d.hidden_size),
    layer("post_attention_layernorm", d.hidden_size),
    layer("self_attn.q_proj", d.hidden_size, queries, bias=True),
    layer("self_attn.k_proj", d.hidden_size, keys, bias=True),
    layer("self_attn.v_proj", d.hidden_size, keys, bias=True),
    layer("self_attn.o_proj", queries, d.hidden_size),
    layer("mlp.gate_proj", d.hidden_size, d.intermediate_size),
    layer("mlp.up_proj", d.hidden_size, d.intermediate_size),
    layer("mlp.down_proj", d.intermediate_size, d.hidden_size),
    Module("model.language_model.norm", "model/norm", "norm", (d.hidden_size,)),
  )
  if d.tie_word_embeddings:
    return table
  return (
    *table,
    Module("lm_head", "lm_head", "dense", (d.hidden_size, d.vocab)),
  )


def _module(name, path, tail, sizes, bias, layers, adapted) -> Module:
  return Module(
    name + tail,
    path + tail.replace(".", "/"),
    "norm" if len(sizes) == 1 else "dense",
    sizes,
    bias,
    layers,
    lora=tail.rpartition(".")[2] in adapted,
  )


def tensors(config: FusarConfig) -> Iterator[Tensor]:
  """Yields every published tensor of the base model, layers in order."""
  for module in modules(config):
    yield from _each_layer(module, _base_leaves(module))


def adapter_tensors(config: FusarConfig) -> Iterator[Tensor]:
  """Yields every LoRA tensor that `config.lora` asks for, layers in order."""
  rank = config.lora.rank
  for module in modules(config):
    if module.lora:
      wide_in, wide_out = module.sizes
      yield from _each_layer(
        module,
        (
          ("lora_A.weight", "lora_a", TRANSPOSE, (rank, wide_in)),
          ("lora_B.weight", "lora_b", TRANSPOSE, (wide_out, rank)),
        ),
      )


def _base_leaves(module: Module):
  if module.kind == "norm":
    return (("weight", "scale", SAME, module.sizes),)
  if module.kind == "embedding":
    return (("weight", "embedding", SAME, module.sizes),)
  if module.kind == "patches":
    temporal, channels, rows, cols, width = module.sizes
    shape = (width, channels, temporal, rows, cols)
    return (("weight", "kernel", PATCHES, shape),)
  weight = ("weight", "kernel", TRANSPOSE, module.sizes[::-1])
  bias = ("bias", "bias", SAME, module.sizes[1:])
  return (weight, bias) if module.bias else (weight,)


def _each_layer(module: Module, leaves) -> Iterator[Tensor]:
  for tail, leaf, transform, shape in leaves:
    for layer in [None] if module.layers is None else range(module.layers):
      name = module.name.replace("*", str(layer))
      yield Tensor(
        f"{name}.{tail}", f"{module.path}/{leaf}", layer, transform, shape
      )


def leaf_shapes(
  config: FusarConfig, *, adapter: bool = False
) -> dict[str, tuple[int, ...]]:
  """Returns path -> shape of our leaves: the base model's, or the adapter's."""
  shapes = {}
  for tensor in adapter_tensors(config) if adapter else tensors(config):
    shape = transformed_shape(tensor)
    if tensor.layer is not None:
      shape = (tensor.layer + 1, *shape)  # ends at the last layer: their number
    shapes[tensor.path] = shape
  return shapes


def transformed_shape(tensor: Tensor) -> tuple[int, ...]:
  """Returns the shape of one published tensor in our order, without layers."""
  if tensor.transform == TRANSPOSE:
    return tensor.shape[::-1]
  if tensor.transform == PATCHES:
    width, channels, temporal, rows, cols = tensor.shape
    return temporal, channels * rows * cols, width
  return tensor.shape


def from_published(array: np.ndarray, transform: str) -> np.ndarray:
  """Returns a published array in leaf layout, as a view if possible.

  The patch convolution [D, 3, 2, 14, 14] becomes [2, 588, D]: one matrix per
  frame over the values (channel, row, column) of a patch.
  """
  if transform == TRANSPOSE:
    return array.T
  if transform == PATCHES:
    width, _, temporal, _, _ = array.shape
    return array.transpose(2, 1, 3, 4, 0).reshape(temporal, -1, width)
  return array


def to_published(array: np.ndarray, tensor: Tensor) -> np.ndarray:
  """Inverse of `from_published`, for one layer's array."""
  if tensor.transform == TRANSPOSE:
    return array.T
  if tensor.transform == PATCHES:
    width, channels, temporal, rows, cols = tensor.shape
    split = array.reshape(temporal, channels, rows, cols, width)
    return split.transpose(4, 1, 0, 2, 3)
  return array


# Order matters: a prefix is stripped before the next line looks at the name.
_TO_CANONICAL = (
  (r"^base_model\.model\.", ""),
  (r"\.base_layer\.(weight|bias)$", r".\1"),
  (r"\.lora_([AB])\.default\.weight$", r".lora_\1.weight"),
  (r"^visual\.", "model.visual."),
  (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
)


def canonical(name: str) -> str:
  """Returns a published name in transformers' in-memory layout.

  Examples:
    >>> canonical("visual.blocks.3.norm1.weight")
    'model.visual.blocks.3.norm1.weight'
    >>> canonical("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight")
    'model.language_model.layers.0.mlp.up_proj.lora_A.weight'
  """
  for pattern, replacement in _TO_CANONICAL:
    name = re.sub(pattern, replacement, name)
  return name


def hub_name(name: str) -> str:
  """Returns a canonical name as the files on the hub spell it."""
  name = re.sub(r"^model\.visual\.", "visual.", name)
  return re.sub(r"^model\.language_model\.", "model.", name)


def peft_name(name: str) -> str:
  """Returns a canonical name as peft's adapter files spell it."""
  return f"base_model.model.{name}"


def layout(names) -> str:
  """Names the layout of a file's keys, for `convert --inspect`."""
  names = list(names)
  peft = any(name.startswith("base_model.model.") for name in names)
  nested = any("model.language_model." in name for name in names)
  kind = "model.visual + model.language_model" if nested else "visual + model"
  return f"peft-prefixed {kind}" if peft else kind
