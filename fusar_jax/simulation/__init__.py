"""Scenes with known truth: ground, targets, backscatter, anchors, words.

An honest small world: what a caption or an answer says is read off the scene
that was drawn, never drawn to fit; what radar and AlphaEarth see of each land
cover is fitted to real places; images and anchors are made by the same code as
those of real scenes. NumPy, Pillow and rasterio only.
"""
