"""Simulated SAR scenes with ground truth, AlphaEarth anchors and captions.

Captions and answers are derived from the drawn scene. Backscatter and
AlphaEarth statistics of each land cover are fitted to real points. Images and
anchors use the same code as real scenes. Depends on NumPy, Pillow and rasterio
only.
"""
