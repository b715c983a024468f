"""The tiny data set of tests/data."""

from tests.data.conftest import (  # noqa: F401 (fixtures)
  assert_same_batches,
  assert_same_rows,
  config,
  manifest,
  odd_manifest,
  take_batches,
  tokenizer,
  triplets,
)
