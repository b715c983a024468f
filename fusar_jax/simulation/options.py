"""Defaults of a simulated scene; imports nothing, so `--help` is fast."""

# Pixels per side; ground sampling distance, metres; maximum anchors per side.
SIZE, GSD, ANCHORS = 168, 3.0, 9
