"""Answers about whole scenes: tiles, answers, and one map of findings."""
