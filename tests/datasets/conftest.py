"""The tiny data set of tests/data."""

from tests.data.conftest import (  # noqa: F401 (fixtures)
  assert_same_batches,
  config,
  manifest,
  odd_manifest,
  tokenizer,
  triplets,
)
