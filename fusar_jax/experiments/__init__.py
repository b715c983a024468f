"""Comparisons of training runs (`fusar_jax.study`) and benchmarks."""
