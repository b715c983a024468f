"""Scenes with known truth: terrain, ships, speckle, anchors, words.

An honest small world: what a caption or an answer says is read off the scene
that was drawn, never drawn to fit. NumPy and Pillow only.
"""
