"""Decoding against `transformers.generate`, which reads the same folder."""

import dataclasses
import os

import numpy as np
import pytest
from scipy import stats

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import torch
import transformers

import fusar_jax
from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.hf import generation_config
from fusar_jax.hf.config_json import write_json
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.generation_config import GenerationDefaults
from fusar_jax.inference import generation
from fusar_jax.model.paths import flatten, unflatten

PROMPTS = [[(56, 56)], [(56, 84), (56, 56)], [(112, 28)]]
NEW = 24
# Of no token, so that only the cap ends an answer.
NEVER = 9999


class Both:
  """One random model in a folder, and prompts of different lengths."""

  def __init__(self, folder, config, params, sample):
    self.folder, self.config = folder, config
    export_merged(folder, config, params)
    self.samples = [sample(config, p, seed) for seed, p in enumerate(PROMPTS)]
    self.pad = config.tokens.pad

  def follow(self, **fields):
    """Writes generation_config.json, and loads both sides."""
    write_json(
      self.folder / "generation_config.json",
      {"pad_token_id": self.pad, "bos_token_id": self.pad, **fields},
    )
    self.model = fusar_jax.load(self.folder)
    self.reference = (
      transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(
        self.folder, dtype=torch.float32
      ).eval()
    )

  def ours(self, samples, new=NEW, **options):
    examples = [
      example_from_ids(s.input_ids, s.images, None, self.config)
      for s in samples
    ]
    batch = pad_batch(examples, config=self.config)
    return self.model.generate_batch(batch, new, **options)

  def theirs(self, samples, new=NEW, **options):
    """transformers' output, with prompts padded on the left."""
    from transformers.models.qwen2_vl import (
      image_processing_pil_qwen2_vl as pil,
    )

    processor = pil.Qwen2VLImageProcessorPil.from_pretrained(self.folder)
    images = [image for sample in samples for image in sample.images]
    seen = processor(images=images, return_tensors="pt")
    self.length = max(len(s.input_ids) for s in samples)
    ids = np.full((len(samples), self.length), self.pad)
    mask = np.zeros_like(ids)
    for row, sample in enumerate(samples):
      ids[row, -len(sample.input_ids) :] = sample.input_ids
      mask[row, -len(sample.input_ids) :] = 1
    ids, mask = torch.tensor(ids), torch.tensor(mask)
    return self.reference.generate(
      input_ids=ids,
      attention_mask=mask,
      pixel_values=seen["pixel_values"],
      image_grid_thw=seen["image_grid_thw"],
      mm_token_type_ids=(ids == self.config.tokens.image).int(),
      max_new_tokens=new,
      **options,
    )

  def their_tokens(self, samples, ends, **options):
    """Their new tokens, up to the first end."""
    rows = []
    for row in self.theirs(samples, do_sample=False, **options).tolist():
      row = row[self.length :]
      stop = next((i + 1 for i, t in enumerate(row) if t in ends), NEW)
      rows.append(row[:stop])
    return rows


@pytest.fixture
def both(tmp_path, config, draw, sample):
  """Small embeddings: else a tied head repeats its input, whatever precedes."""
  params = flatten(draw(config, 3))
  params["model/embed_tokens/embedding"] *= 0.1
  return Both(tmp_path / "model", config, unflatten(params), sample)


def test_greedy_with_penalty_and_several_ends(both, monkeypatch):
  """A batch of ragged prompts; rows end early, at either end or at the cap."""
  both.follow(eos_token_id=NEVER)
  plain = both.ours(both.samples)
  assert plain == both.their_tokens(both.samples, {NEVER})
  both.follow(eos_token_id=NEVER, repetition_penalty=1.3)
  penalized = both.ours(both.samples)
  assert penalized == both.their_tokens(both.samples, {NEVER})
  assert penalized != plain
  assert all(map(both.model.truncated, penalized))
  # Tokens that two of the rows arrive at, not at once.
  ends = [penalized[0][7], penalized[1][11]]
  both.follow(
    eos_token_id=ends, repetition_penalty=1.3, do_sample=True, temperature=1e-6
  )
  for first in (256, 8):  # In one program, and in several.
    monkeypatch.setattr(generation, "FIRST", first)
    answers = both.ours(both.samples)
    assert answers == both.their_tokens(both.samples, set(ends))
  assert len({len(answer) for answer in answers}) > 1
  assert {answer[-1] for answer in answers} >= {ends[0]}
  assert both.ours(both.samples[1:2]) == answers[1:2]


@pytest.mark.parametrize(
  "fields",
  [
    {},  # top_k is 50 where the file has none.
    {"repetition_penalty": 1.4, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
  ],
)
def test_samples_have_the_distribution_of_transformers(both, fields):
  """Chi-square over 2048 next tokens, of fixed seeds."""
  both.follow(eos_token_id=NEVER, **fields)
  temperature = 1.2
  out = both.theirs(
    both.samples[:1],
    new=1,
    do_sample=True,
    temperature=temperature,
    output_scores=True,
    return_dict_in_generate=True,
  )
  expected = torch.softmax(out.scores[0][0].double(), -1).numpy()
  rows, seeds = 64, 32
  drawn = [
    token
    for seed in range(seeds)
    for (token,) in both.ours(
      both.samples[:1] * rows, 1, temperature=temperature, seed=seed
    )
  ]
  counts = np.bincount(drawn, minlength=len(expected))
  assert counts[expected == 0].sum() == 0
  assert (expected > 0).sum() > 5
  expected = expected * len(drawn)
  rare = expected < 5
  groups = [(counts[i], expected[i]) for i in np.flatnonzero(~rare)]
  if expected[rare].sum() >= 5:
    groups.append((counts[rare].sum(), expected[rare].sum()))
  seen, due = np.array(groups).T
  statistic = ((seen - due) ** 2 / due).sum()
  assert statistic < stats.chi2.ppf(0.999, len(due) - 1)


def test_every_field_of_transformers_is_known():
  theirs = {
    name
    for name in vars(transformers.GenerationConfig())
    if name not in ("_original_object_hash", "_mask_length")
  }
  assert not generation_config._unused(dict.fromkeys(theirs, None))
  unknown = [
    message
    for name in theirs
    for message in generation_config._unused({name: "x"})
    if "unknown" in message
  ]
  assert not unknown


def test_defaults_are_those_of_transformers():
  theirs = transformers.GenerationConfig._get_default_generation_params()
  ours = dataclasses.asdict(GenerationDefaults())
  for name in ("repetition_penalty", "top_k", "top_p"):
    assert ours[name] == theirs[name]
  for name, neutral in generation_config._NEUTRAL.items():
    assert theirs.get(name) is None or theirs[name] in neutral, name
