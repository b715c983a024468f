"""Adapters to evaluation harnesses: lmms-eval and VLMEvalKit.

Nothing is imported here: each module needs the harness that it is for.
"""
