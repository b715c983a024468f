"""Limits on tokens, those of the official code; imports nothing, for --help."""

# Of an example in training, and of a prompt in prediction.
MAX_LENGTH = 2048
PROMPT_LENGTH = 4096
