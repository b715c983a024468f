"""Benchmark of this implementation against PyTorch, measured alternately."""
