"""A loaded model that answers padded batches of prompts.

The part of `Assistant` that knows neither images nor files: `predict` and the
server pad their own batches and decode them together.

B batch, C visual token width, I images in a sample, M merged visual tokens.
"""

import dataclasses
from collections.abc import (
  Callable,
  Hashable,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.hf.generation_config import GenerationDefaults
from fusar_jax.inference.automaton import Automaton
from fusar_jax.inference.continuous import (
  ContinuousBatch,
  Group,
  Usage,
  generate_rows,
)
from fusar_jax.inference.generation import Constraint, Decoding, generate
from fusar_jax.inference.likelihood import log_likelihoods
from fusar_jax.inference.mesh import compiled, put_rows
from fusar_jax.inference.options import MAX_NEW_TOKENS
from fusar_jax.inference.token_table import TokenTable, build_table
from fusar_jax.model.batch import Batch
from fusar_jax.model.compiling import fast_options
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT


class LoadedModel:
  """A model with its parameters and tokenizer.

  Attributes:
    config: `FusarConfig`.
    params: nested dict of arrays, as `init_params`.
    tokenizer: the tokenizer, or None if the folder contains none.
    generation: `GenerationDefaults`. Its end tokens and repetition penalty
      always apply; the other fields apply at temperatures above 0. May be
      replaced.
    mesh: devices of `params`, or None: the default device.
  """

  def __init__(
    self,
    config: FusarConfig,
    params: dict,
    tokenizer: Tokenizer | None = None,
    dtype: jnp.dtype | None = None,
    generation: GenerationDefaults | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ):
    """See the attributes.

    Args:
      dtype: dtype of activations; None: float32 on a CPU, elsewhere that of
        the weights.
    """
    self.config = config
    self.params = params
    self.tokenizer = tokenizer
    self.generation = generation or GenerationDefaults()
    self.mesh = mesh
    dtype = _fast_dtype(params) if dtype is None else dtype
    devices = 1 if mesh is None else mesh.size
    options = fast_options(config, devices, dtype=dtype)
    self.model = FusarGPT(config, dtype=dtype, **options)

  def generate_batch(
    self,
    batch: Batch,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    constraint: Constraint | None = None,
    repetition_penalty: float | None = None,
  ) -> list[list[int]]:
    """Returns the new tokens of each row, the end token included if produced.

    Args:
      batch: padded prompts (`pad_batch`).
      max_new_tokens: maximum number of new tokens.
      temperature, seed, repetition_penalty: as `Assistant.ask`.
      constraint: grammar of the answers (`token_table`); None: unconstrained.
    """
    decoding = self._decoding(
      max_new_tokens, repetition_penalty, temperature, seed
    )
    return generate(
      self.model, self.params, batch, decoding, constraint, self.mesh
    )

  def generate_rows(
    self,
    groups: Iterable[Group],
    slots: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    repetition_penalty: float | None = None,
    usage: Usage | None = None,
  ) -> Iterator[dict[int, list[int]]]:
    """Greedy answers of many prompts, see `continuous.generate_rows`."""
    decoding = self._decoding(max_new_tokens, repetition_penalty)
    return generate_rows(
      self.model, self.params, groups, slots, decoding, self.mesh, usage
    )

  def continuous_batch(
    self, slots: int, max_new_tokens: int = MAX_NEW_TOKENS
  ) -> ContinuousBatch:
    """Returns slots that take prompts at any time, each with its own options.

    Args:
      slots: prompts that decode together.
      max_new_tokens: of the longest answer.
    """
    # A temperature of 1 asks for the sampling options, not for sampling.
    decoding = self._decoding(max_new_tokens, None, temperature=1.0)
    decoding = dataclasses.replace(decoding, temperature=0.0)
    return ContinuousBatch(
      self.model, self.params, slots, decoding, self.mesh, samples=True
    )

  def encode_images(self, batch: Batch) -> jax.Array:
    """Returns [B, I, M, C], visual tokens before the TLM: `Batch.visual`."""
    return self._run(_encoded, batch)

  def _decoding(
    self,
    max_new_tokens: int,
    repetition_penalty: float | None,
    temperature: float = 0.0,
    seed: int = 0,
  ) -> Decoding:
    defaults = self.generation
    if repetition_penalty is None:
      repetition_penalty = defaults.repetition_penalty
    sampling = {}
    if temperature:
      sampling = {
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
      }
    return Decoding(
      max_new_tokens,
      temperature,
      seed,
      self._stop,
      repetition_penalty,
      **sampling,
    )

  def truncated(self, tokens: Sequence[int]) -> bool:
    """Whether an answer of `generate` hit the cap: it has no end token."""
    return tokens[-1] not in self._stop

  def token_table(self, grammars: Mapping[Hashable, Automaton]) -> TokenTable:
    """Returns the table of a grammar's versions over the model's tokens.

    Raises:
      ValueError: see `build_table`; or there is no tokenizer.
    """
    return build_table(
      grammars, self.need_tokenizer(), self.config.decoder.vocab, self._stop
    )

  def log_likelihoods(
    self, batch: Batch, answers: Sequence[Sequence[str]]
  ) -> list[np.ndarray]:
    """Returns float32[C] per row: how likely each of its C answers is.

    Natural logarithms of the probability of saying just this: the end token is
    counted. Prompts are read once, however many answers there are.

    Args:
      batch: padded prompts (`pad_batch`).
      answers: texts, per row of the batch.
    """
    tokenizer = self.need_tokenizer()
    end = self.config.tokens.end_of_turn
    candidates = [
      [[*tokenizer.encode(text), end] for text in row] for row in answers
    ]
    return log_likelihoods(
      self.model, self.params, batch, candidates, self.mesh
    )

  @property
  def _stop(self) -> tuple[int, ...]:
    tokens = self.config.tokens
    return self.generation.eos_token_ids or (tokens.end_of_turn, tokens.pad)

  def _run(self, function: Callable, batch: Batch) -> jax.Array:
    program = compiled(function, self.mesh, static=1)
    return program(self.model, self.params, put_rows(batch, self.mesh))

  def need_tokenizer(self) -> Tokenizer:
    if self.tokenizer is None:
      raise ValueError(
        "the model's folder holds no tokenizer.json or tokenizer.model; put"
        " one there to ask in words, or use generate() with ids."
      )
    return self.tokenizer


def _encoded(model, params, batch):
  return model.apply(
    {"params": params}, batch, method=FusarGPT.visual_tokens, modulate=False
  )


def _fast_dtype(params: dict) -> jnp.dtype:
  # On a CPU, float32 is exact and not slower than bfloat16: 20.2 and 21.6 ms
  # per forward pass, 2.3 and 2.5 ms per new token (tiny base, 2 cores).
  on_cpu = jax.default_backend() == "cpu"
  return jnp.float32 if on_cpu else params["model"]["norm"]["scale"].dtype
