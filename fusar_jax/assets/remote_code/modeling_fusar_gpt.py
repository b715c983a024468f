"""FUSAR-GPT for transformers: Qwen2.5-VL whose visual tokens anchors modulate.

  AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)

The Token-wise Linear Modulation (TLM) stays in the official code's files,
`vec64_film.pt` and `tlm_config.json`, next to the weights of a plain
Qwen2.5-VL: without `trust_remote_code` the same folder loads as that. Needs
torch and transformers, nothing else.

For each anchor s with AlphaEarth vector v_s an MLP gives a gain and a shift per
channel, which spatial weights spread over the M visual tokens of its image:
    x'_m = x_m * (1 + sum_s w[m, s] gamma_s) + sum_s w[m, s] beta_s.

C visual token width, E = 64 embedding bands, I images of a batch, M merged
visual tokens of an image, S anchors of an image, padded.
"""

import inspect
import json
import os
from typing import Any

import torch
import transformers
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel
from transformers.utils.hub import cached_file

TLM_WEIGHTS = "vec64_film.pt"
TLM_SETTINGS = "tlm_config.json"
TLM_FORMAT = "tlm_original_train_patch_resize_v1"
# Of a repository's files, as `from_pretrained` takes them.
_HUB_OPTIONS = (
  "cache_dir", "force_download", "local_files_only", "proxies", "revision",
  "subfolder", "token",
)  # fmt: skip
# The reference's constant: weights far from every anchor approach zero.
_EPSILON = 1e-6

try:
  from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
  )

  _FORWARD = inspect.signature(Qwen2_5_VLForConditionalGeneration.forward)
  _TAKES_TOKENS = _FORWARD.parameters["mm_encoder_outputs"]
except (ImportError, KeyError) as error:
  raise ImportError(
    f"this code does not fit transformers {transformers.__version__} ({error});"
    " it was tested with 5.23: pip install 'transformers>=5.23,<6'"
  ) from None


def spatial_weights(
  positions: torch.Tensor, grid: tuple[int, int], sigma: float
) -> torch.Tensor:
  """Returns float32[M, S], the share of each anchor in each merged token.

  A Gaussian on the grid of patches, normalised twice as in the official
  training code, then the mean of each 2 x 2 block.

  Args:
    positions: float32[S, 2], (y, x) in [0, 1] of the image.
    grid: (hp, wp), patches before the merge; both even.
    sigma: width of the Gaussian, in patches.
  """
  hp, wp = grid
  rows, columns = (
    torch.square(
      positions[:, axis] * (cells - 1)
      - torch.arange(cells, device=positions.device, dtype=torch.float32)[
        :, None
      ]
    )
    for axis, cells in enumerate(grid)
  )
  weights = torch.exp((rows[:, None] + columns[None]) * (-0.5 / sigma**2))
  for _ in range(2):
    weights = weights / (weights.sum(-1, keepdim=True) + _EPSILON)
  cells = weights.reshape(hp // 2, 2, wp // 2, 2, -1)
  return cells.mean((1, 3)).reshape(hp * wp // 4, -1)


class FusarGPTModel(Qwen2_5_VLModel):
  """Tower, TLM and decoder. `film_mlp` is None until `load_tlm`."""

  def __init__(self, config):
    super().__init__(config)
    self.film_mlp: Any = None  # nn.Sequential
    self.tlm_settings: Any = None  # content of `tlm_config.json`

  def get_image_features(
    self,
    pixel_values: Any,
    image_grid_thw: Any = None,
    anchor_features: Any = None,
    anchor_positions: Any = None,
    anchor_mask: Any = None,
    **kwargs,
  ) -> Any:
    """As Qwen2.5-VL's; its `pooler_output` is modulated.

    Args:
      pixel_values, image_grid_thw: as Qwen2.5-VL's processor gives them.
      anchor_features: float32[I, S, E], or None: no image has anchors.
      anchor_positions: float32[I, S, 2], (y, x) in [0, 1] of the image.
      anchor_mask: bool[I, S], False on padding. An image without anchors
        keeps its tokens.

    Raises:
      ValueError: anchors of another shape or number of images, or a model
        without TLM.
    """
    found: Any = super().get_image_features(
      pixel_values, image_grid_thw, **kwargs
    )
    if anchor_features is None:
      return found
    self._check(image_grid_thw, anchor_features, anchor_positions, anchor_mask)
    found.pooler_output = tuple(
      self._modulated(tokens, (hp, wp), features[mask], positions[mask])
      for tokens, (_, hp, wp), features, positions, mask in zip(
        found.pooler_output,
        image_grid_thw.tolist(),
        anchor_features,
        anchor_positions,
        anchor_mask.bool(),
      )
    )
    return found

  def _modulated(self, tokens, grid, features, positions):
    if not len(features):
      return tokens
    weight = self.film_mlp[0].weight
    device = weight.device
    # In float32 whatever the model's dtype, as it was trained.
    with torch.autocast(device.type, enabled=False):
      field = self.film_mlp(features.to(device, weight.dtype)).float()
      weights = spatial_weights(
        positions.to(device, torch.float32), grid, self.tlm_settings["sigma"]
      )
      gain, shift = (weights @ field).to(tokens.device).chunk(2, dim=-1)
      return (tokens * (1 + gain) + shift).to(tokens.dtype)

  def _check(self, grids, features, positions, mask):
    if self.film_mlp is None:
      raise ValueError(
        f"anchors are given, but the model has no TLM: its folder holds no"
        f" {TLM_WEIGHTS}. Load one with load_tlm(FOLDER), or leave the anchors"
        " out."
      )
    if grids is None or positions is None or mask is None:
      raise ValueError(
        "anchor_features need anchor_positions, anchor_mask and image_grid_thw;"
        " take all of them from the processor."
      )
    images, most = len(grids), features.shape[1]
    bands = self.film_mlp[0].in_features
    wanted = {
      "anchor_features": (features, (images, most, bands)),
      "anchor_positions": (positions, (images, most, 2)),
      "anchor_mask": (mask, (images, most)),
    }
    wrong = [
      f"{name} has shape {list(given.shape)}, expected {list(shape)}"
      for name, (given, shape) in wanted.items()
      if tuple(given.shape) != shape
    ]
    if wrong:
      raise ValueError(f"{'; '.join(wrong)}, for {images} image(s).")
    if positions.dtype not in (torch.float32, torch.float64):
      raise ValueError(
        f"anchor_positions are {positions.dtype}, which rounds them to"
        " different places. Call inputs.to(DEVICE) without a dtype: the model"
        " converts its pixels itself."
      )


class FusarGPTForConditionalGeneration(Qwen2_5_VLForConditionalGeneration):
  """Qwen2.5-VL with TLM: takes the three anchor arrays of the processor."""

  # Saves this file with the model.
  _auto_class = "AutoModelForImageTextToText"

  def __init__(self, config):
    # Not that of Qwen2_5_VLForConditionalGeneration, which makes its own model.
    super(Qwen2_5_VLForConditionalGeneration, self).__init__(config)
    text: Any = config.text_config
    self.model = FusarGPTModel(config)
    self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
    self.post_init()

  @classmethod
  def from_pretrained(
    cls, pretrained_model_name_or_path, *args, tlm=None, **kwargs
  ):
    """As transformers', with the TLM of the folder if it has one.

    Args:
      tlm: folder or hub id of the TLM's files, for a base without them: that
        of an adapter, which peft loads afterwards.

    Raises:
      ValueError: weights are missing, which transformers would draw at random.
    """
    with_info = kwargs.pop("output_loading_info", False)
    made: Any = super().from_pretrained(
      pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
    )
    model, info = made
    missing = sorted(info["missing_keys"])
    if missing:
      raise ValueError(
        f"{pretrained_model_name_or_path}: {len(missing)} weights are missing,"
        f" among them {', '.join(missing[:3])}: the files are incomplete, or"
        " of another model."
      )
    if tlm is not None:
      model.load_tlm(tlm)
    elif pretrained_model_name_or_path is not None:
      options = {k: kwargs[k] for k in _HUB_OPTIONS if k in kwargs}
      if _file(pretrained_model_name_or_path, TLM_WEIGHTS, options):
        model.load_tlm(pretrained_model_name_or_path, **options)
    return (model, info) if with_info else model

  def load_tlm(self, source, *, legacy_sigma: float | None = None, **options):
    """Loads the TLM from its official files, in place of any before.

    Args:
      source: folder or hub id with `vec64_film.pt` and `tlm_config.json`.
      legacy_sigma: for files without `tlm_config.json`: 2.
      options: `subfolder`, `revision`, `token`, ... of a hub id.

    Raises:
      FileNotFoundError: no TLM there.
      ValueError: a malformed file, or a TLM of another model's width.
    """
    path = _file(source, TLM_WEIGHTS, options)
    if path is None:
      raise FileNotFoundError(f"{source}: no {TLM_WEIGHTS} there.")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("film_mlp") if isinstance(content, dict) else None
    names = {"0.weight", "0.bias", "2.weight", "2.bias"}
    if not isinstance(state, dict) or set(state) != names:
      raise ValueError(
        f"{path}: expected a dict with 'film_mlp' and in it {sorted(names)}."
      )
    hidden, bands = state["0.weight"].shape
    vision: Any = self.config.vision_config
    width = vision.out_hidden_size
    if tuple(state["2.weight"].shape) != (2 * width, hidden):
      raise ValueError(
        f"{path}: 2.weight has shape {list(state['2.weight'].shape)}, expected"
        f" {[2 * width, hidden]}: take the TLM that was trained with this"
        " model."
      )
    settings = _settings(source, options, legacy_sigma, bands, hidden, width)
    with torch.device("meta"):
      mlp = nn.Sequential(
        nn.Linear(bands, hidden), nn.SiLU(), nn.Linear(hidden, 2 * width)
      )
    state = {name: value.float() for name, value in state.items()}
    mlp.load_state_dict(state, assign=True)
    # On the device of the tokens; on the CPU where those are offloaded.
    device = next(self.model.visual.merger.parameters()).device
    self.model.film_mlp = mlp.to("cpu" if device.type == "meta" else device)
    self.model.tlm_settings = settings
    # In files of their own: other loaders reject names that they do not know.
    self._keys_to_ignore_on_save = {
      *(self._keys_to_ignore_on_save or ()),
      *(f"model.film_mlp.{name}" for name in names),
    }

  def save_pretrained(self, save_directory, *args, **kwargs):
    """As transformers', with the TLM in its official files.

    Raises:
      ValueError: `push_to_hub=True`, which would upload before the TLM is
        written; call `push_to_hub` instead.
    """
    if kwargs.get("push_to_hub") and self.model.film_mlp is not None:
      raise ValueError(
        "save_pretrained(push_to_hub=True) would leave the TLM out: call"
        " model.push_to_hub(REPOSITORY)."
      )
    super().save_pretrained(save_directory, *args, **kwargs)
    if self.model.film_mlp is None or not kwargs.get("is_main_process", True):
      return
    state = self.model.film_mlp.state_dict()
    state = {name: value.float().cpu() for name, value in state.items()}
    torch.save({"film_mlp": state}, os.path.join(save_directory, TLM_WEIGHTS))
    path = os.path.join(save_directory, TLM_SETTINGS)
    with open(path, "w", encoding="utf-8") as file:
      file.write(json.dumps(self.model.tlm_settings, indent=2) + "\n")

  def forward(
    self,
    input_ids=None,
    attention_mask=None,
    position_ids=None,
    past_key_values=None,
    inputs_embeds=None,
    labels=None,
    use_cache=None,
    pixel_values=None,
    image_grid_thw=None,
    mm_token_type_ids=None,
    logits_to_keep=0,
    mm_encoder_outputs=None,
    anchor_features=None,
    anchor_positions=None,
    anchor_mask=None,
    **kwargs,
  ):
    """As Qwen2.5-VL's; anchors as `FusarGPTModel.get_image_features`.

    Images enter with the first tokens of an answer, and anchors with them:
    `generate` encodes both once.
    """
    if pixel_values is not None and anchor_features is not None:
      model: Any = self.model
      image = model.get_image_features(
        pixel_values,
        image_grid_thw,
        anchor_features=anchor_features,
        anchor_positions=anchor_positions,
        anchor_mask=anchor_mask,
        return_dict=True,
      )
      pixel_values = None
      mm_encoder_outputs = {**(mm_encoder_outputs or {}), "image": image}
    return super().forward(
      input_ids=input_ids,
      attention_mask=attention_mask,
      position_ids=position_ids,
      past_key_values=past_key_values,
      inputs_embeds=inputs_embeds,
      labels=labels,
      use_cache=use_cache,
      pixel_values=pixel_values,
      image_grid_thw=image_grid_thw,
      mm_token_type_ids=mm_token_type_ids,
      logits_to_keep=logits_to_keep,
      mm_encoder_outputs=mm_encoder_outputs,
      **kwargs,
    )


def _file(source, name, options):
  """Returns the path of a file of a folder or repository, or None."""
  return cached_file(
    source,
    name,
    _raise_exceptions_for_missing_entries=False,
    _raise_exceptions_for_gated_repo=False,
    **options,
  )


def _settings(source, options, legacy_sigma, bands, hidden, width) -> dict:
  """Returns the content of `tlm_config.json`, checked against the weights."""
  path = _file(source, TLM_SETTINGS, options)
  if path is None:
    if legacy_sigma is None:
      raise ValueError(
        f"{source}: {TLM_SETTINGS} is missing, so the width of the anchors'"
        " Gaussian is unknown. The official code used 2: call"
        " load_tlm(..., legacy_sigma=2)."
      )
    return {
      "format": TLM_FORMAT,
      "sigma": float(legacy_sigma),
      "hidden_mult": hidden // width,
      "image_size": 504,
      "vec_dim": bands,
    }
  with open(path, encoding="utf-8") as file:
    settings = json.load(file)
  if not isinstance(settings, dict) or settings.get("format") != TLM_FORMAT:
    raise ValueError(f"{path}: expected an object of format {TLM_FORMAT!r}.")
  sigma = settings.get("sigma")
  if not isinstance(sigma, int | float) or not sigma > 0:
    raise ValueError(f"{path}: sigma {sigma!r} must be a positive number.")
  if settings.get("vec_dim") != bands:
    raise ValueError(
      f"{path}: vec_dim {settings.get('vec_dim')!r}, but {TLM_WEIGHTS} takes"
      f" vectors of {bands}."
    )
  return settings


# transformers renames the tensors of older files for its own classes only.
_RENAMED: Any = get_checkpoint_conversion_mapping(
  Qwen2_5_VLForConditionalGeneration.__name__
)
register_checkpoint_conversion_mapping(
  FusarGPTForConditionalGeneration.__name__, _RENAMED, overwrite=True
)
