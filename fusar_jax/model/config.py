"""Shapes of the model, as frozen dataclasses; no JAX, so that loaders may read.

Names and defaults follow Qwen2.5-VL's `config.json` (transformers) and the
official FUSAR-GPT adapter folder (`adapter_config.json`, `tlm_config.json`).

C visual token width, D model width, E = 64 embedding bands, F feed-forward
width, H head width, K key/value heads, N query heads, R LoRA rank.
"""

import dataclasses
from collections.abc import Container
from typing import Any

from fusar_jax.field_types import check_fields

LANGUAGE_PROJECTIONS = (
  "q_proj",
  "k_proj",
  "v_proj",
  "o_proj",
  "gate_proj",
  "up_proj",
  "down_proj",
)
VISION_PROJECTIONS = ("qkv", "proj", "gate_proj", "up_proj", "down_proj")
FUSIONS = ("tlm", "concatenation", "sum")
# Bounds of what may be a model at all.
_MOST_LAYERS, _LARGEST = 1024, 1 << 31


def _check_numbers(
  part: str, config: Any, may_be_zero: Container[str] = ()
) -> None:
  """Raises ValueError for values that no model has.

  Some give empty answers (an epsilon of 0), others take all of the memory (a
  billion layers).
  """
  try:
    check_fields(config)
  except ValueError as error:
    raise ValueError(f"{part}: {error}") from None
  for name, value in dataclasses.asdict(config).items():
    if isinstance(value, bool) or name in may_be_zero:
      continue
    values = value if isinstance(value, tuple) else (value,)
    largest = _MOST_LAYERS if name in ("depth", "layers") else _LARGEST
    if not all(0 < v <= largest for v in values):
      raise ValueError(
        f"{part}: {name} is {value!r}; expected numbers above 0, at most"
        f" {largest}."
      )


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """Qwen2.5-VL's vision tower: window attention, a few full-attention blocks.

  Attributes:
    depth: number of blocks.
    hidden_size: D of the tower.
    heads: attention heads; `width / heads` is a multiple of 4.
    intermediate_size: SwiGLU width.
    out_width: C, width of a merged visual token; equals the decoder's width.
    full_attention: indices of blocks that attend over the whole image.
    window: side of an attention window, in pixels.
    patch: side of a patch, in pixels.
    merge: side of the square of patches that one visual token covers.
    temporal: frames a patch spans; a still image fills all of them.
    rope_theta: base of the 2-D rotary embedding.
    norm_eps: epsilon of the RMS norms.
    mean, std: normalisation per channel, of values in [0, 1].
  """

  depth: int = 32
  hidden_size: int = 1280
  heads: int = 16
  intermediate_size: int = 3420
  out_width: int = 3584
  full_attention: tuple[int, ...] = (7, 15, 23, 31)
  window: int = 112
  patch: int = 14
  merge: int = 2
  temporal: int = 2
  rope_theta: float = 10000.0
  norm_eps: float = 1e-6
  mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
  std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

  def __post_init__(self):
    _check_numbers("vision", self, may_be_zero=("full_attention", "mean"))
    if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 4:
      raise ValueError(
        f"vision: hidden_size {self.hidden_size} / heads {self.heads} must be a"
        " multiple of 4: 2-D rotary splits a head in four."
      )
    if self.window % (self.patch * self.merge):
      raise ValueError(
        f"vision: window {self.window} must be a multiple of"
        f" {self.patch * self.merge} pixels (patch x merge)."
      )
    outside = [i for i in self.full_attention if not 0 <= i < self.depth]
    if outside:
      raise ValueError(
        f"vision: full_attention {outside} outside 0..{self.depth - 1}."
      )

  @property
  def head_dim(self) -> int:
    return self.hidden_size // self.heads

  @property
  def cell(self) -> int:
    """Pixels per side of one merged visual token; image sides divide by it."""
    return self.patch * self.merge

  @property
  def patch_values(self) -> int:
    """Values of one patch of one frame: 3 * patch * patch."""
    return 3 * self.patch * self.patch

  @property
  def window_cells(self) -> int:
    """Merged cells per side of an attention window."""
    return self.window // self.cell

  @property
  def window_patches(self) -> int:
    """Patches in a whole (not ragged) attention window."""
    return (self.window // self.patch) ** 2


@dataclasses.dataclass(frozen=True)
class TLMConfig:
  """Token-wise Linear Modulation (`tlm_config.json` of the official code).

  Attributes:
    bands: E, values of one AlphaEarth vector (`vec_dim`).
    hidden_mult: hidden width is `max(128, hidden_mult * C)`.
    sigma: width of the anchors' Gaussian, in patches.
    fusion: one of FUSIONS; all but "tlm" are for comparison only, see
      `fusar_jax.model.fusion`.
  """

  bands: int = 64
  hidden_mult: int = 4
  sigma: float = 2.0
  fusion: str = "tlm"

  def __post_init__(self):
    check_fields(self)
    if self.bands < 1 or self.hidden_mult < 0:
      raise ValueError(
        f"tlm: bands {self.bands}, hidden_mult {self.hidden_mult}; expected at"
        " least 1 and 0."
      )
    if self.fusion not in FUSIONS:
      raise ValueError(
        f"tlm.fusion {self.fusion!r}: expected one of {', '.join(FUSIONS)}."
      )

  def hidden(self, out_width: int) -> int:
    return max(128, self.hidden_mult * out_width)


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Qwen2.5's decoder with multimodal rotary positions.

  Attributes:
    layers: number of decoder layers.
    hidden_size: D.
    heads: N query heads.
    kv_heads: K key/value heads; divides N.
    head_dim: H, even.
    intermediate_size: F.
    vocab: V (`vocab_size`), rows of the embedding.
    tie_word_embeddings: whether the head is the embedding, transposed.
    rope_theta: base of the rotary embedding.
    mrope_section: frequencies given to time, row, column; sums to H / 2.
    norm_eps: epsilon of the RMS norms.
  """

  layers: int = 28
  hidden_size: int = 3584
  heads: int = 28
  kv_heads: int = 4
  head_dim: int = 128
  intermediate_size: int = 18944
  vocab: int = 152064
  tie_word_embeddings: bool = False
  rope_theta: float = 1_000_000.0
  mrope_section: tuple[int, int, int] = (16, 24, 24)
  norm_eps: float = 1e-6

  def __post_init__(self):
    _check_numbers("decoder", self)
    if self.heads % self.kv_heads:
      raise ValueError(
        f"decoder: heads {self.heads} must be a multiple of kv_heads"
        f" {self.kv_heads}."
      )
    if 2 * sum(self.mrope_section) != self.head_dim:
      raise ValueError(
        f"decoder: mrope_section {self.mrope_section} must sum to half of"
        f" head_dim {self.head_dim}."
      )


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
  """Low-rank adapters on projections; rank 0 means none.

  Attributes:
    rank: R.
    alpha: scale is `alpha / rank`.
    dropout: rate on the adapter's input, while training.
    language: decoder projections that carry an adapter.
    vision: tower projections that carry an adapter.
  """

  rank: int = 0
  alpha: float = 32.0
  dropout: float = 0.0
  language: tuple[str, ...] = LANGUAGE_PROJECTIONS
  vision: tuple[str, ...] = ()

  def __post_init__(self):
    check_fields(self)
    if self.rank < 0:
      raise ValueError(f"lora.rank is {self.rank}; expected 0 or more.")
    for part, names, known in (
      ("language", self.language, LANGUAGE_PROJECTIONS),
      ("vision", self.vision, VISION_PROJECTIONS),
    ):
      unknown = sorted(set(names) - set(known))
      if unknown:
        raise ValueError(
          f"lora.{part}: unknown projections {unknown}; known: {list(known)}."
        )

  @property
  def scale(self) -> float:
    return self.alpha / self.rank if self.rank else 0.0


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
  """Ids that the model itself must know (`config.json` of Qwen2.5-VL).

  Attributes:
    image: a visual token's place in the text.
    vision_start, vision_end: around the visual tokens of an image.
    end_of_turn: ends an answer.
    pad: fills a row.
  """

  image: int = 151655
  vision_start: int = 151652
  vision_end: int = 151653
  end_of_turn: int = 151645
  pad: int = 151643

  def __post_init__(self):
    check_fields(self)


@dataclasses.dataclass(frozen=True)
class FusarConfig:
  """The whole model. `tlm` None: plain Qwen2.5-VL, images stay unmodulated.

  Attributes:
    vision, decoder, lora, tokens: the parts.
    tlm: of the anchors; None: plain Qwen2.5-VL.
    image_size: (height, width) in pixels that every image is squashed to, or
      None: each image keeps its own size, rounded to multiples of 28 and
      bounded by min_pixels and max_pixels as Qwen's processor does.
    min_pixels, max_pixels: bounds for image_size None.
  """

  vision: VisionConfig = VisionConfig()
  decoder: DecoderConfig = DecoderConfig()
  tlm: TLMConfig | None = TLMConfig()
  lora: LoRAConfig = LoRAConfig()
  tokens: SpecialTokens = SpecialTokens()
  image_size: tuple[int, int] | None = (504, 504)
  min_pixels: int = 3136
  max_pixels: int = 1003520

  def __post_init__(self):
    check_fields(self)
    if self.vision.out_width != self.decoder.hidden_size:
      raise ValueError(
        f"vision.out_width {self.vision.out_width} must equal"
        f" decoder.hidden_size {self.decoder.hidden_size}."
      )
    if self.image_size and any(s % self.vision.cell for s in self.image_size):
      raise ValueError(
        f"image_size {self.image_size} must be multiples of"
        f" {self.vision.cell} pixels (patch {self.vision.patch} x merge"
        f" {self.vision.merge})."
      )
