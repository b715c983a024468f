"""Runs that are compared with each other: what `fusar_jax.study` does."""
