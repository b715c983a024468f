"""Model input: a batch of arrays of static shape.

The host computes all data-dependent values (patches, window order, positions,
anchor weights); see `fusar_jax.data.padding.pad_batch`.

A target positions, B batch, E = 64 embedding bands, I images in a sample, L
text length, M merged visual tokens of an image, P patches of an image, S
anchors, T patches of a window, W windows of an image.
"""

import flax.struct
import jax


@flax.struct.dataclass
class Batch:
  """A batch, padded.

  Attributes:
    input_ids: int32[B, L].
    segment_ids: int32[B, L]; 0 is padding, 1.. the samples packed in a row.
    positions: int32[B, 3, L]; time, row, column of M-RoPE.
    visual_index: int32[B, L]; index into the row's I * M visual tokens, -1 for
      text.
    patches: uint8[B, I, P, 588]; 3 x 14 x 14 values of one frame, in the order
      of merged cells (raster), in each cell its four patches (raster).
    patch_positions: int32[B, I, P, 2]; row and column of each patch.
    patch_mask: bool[B, I, P]; False on padding.
    window_index: int32[B, I, W, T]; the patches of each attention window, P
      where a ragged window has none.
    anchor_features: float32[B, I, S, E]; AlphaEarth vectors.
    anchor_weights: float32[B, I, M, S]; share of each anchor in each visual
      token; all zero: the image stays unmodulated.
    answer_index: int32[B, A]; position whose hidden state predicts the
      supervised token, that is, one before it. Values >= L index features that
      `fusar_jax.training.aux_targets` appends.
    answer_ids: int32[B, A]; ids of the supervised tokens.
    answer_weight: float32[B, A]; weight in the loss, 0 on padding.
    visual: float[B, I, M, C]; visual tokens before the TLM, if they are known.
      The vision tower does not run then, and its inputs may be None.

  Example: a row of 6 tokens, `<image> <image> what ? ship <end>`, of which the
  last two are the answer:
    visual_index  [ 0, 1, -1, -1, -1, -1]
    answer_index  [ 3, 4]      answer_ids [ship, <end>]
    answer_weight [.5, .5]     (mean over the example's answer)
  """

  input_ids: jax.Array
  segment_ids: jax.Array
  positions: jax.Array
  visual_index: jax.Array
  patches: jax.Array
  patch_positions: jax.Array
  patch_mask: jax.Array
  window_index: jax.Array
  anchor_features: jax.Array
  anchor_weights: jax.Array
  answer_index: jax.Array
  answer_ids: jax.Array
  answer_weight: jax.Array
  visual: jax.Array | None = None
