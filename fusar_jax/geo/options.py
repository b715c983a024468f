"""Choices and defaults of anchor grids and stretches.

Imports no rasterio, so `--help` of the commands that show them is fast.
"""

# Grid of anchors: metres between grid points, and their maximum per side.
SPACING = 10.0
LIMIT = 32
# Curves of the stretch to 8 bits; percentiles mapped to black and white.
DECIBELS, LINEAR = "db", "amplitude"
CURVES = (DECIBELS, LINEAR)
PERCENTILES = (1.0, 99.0)
