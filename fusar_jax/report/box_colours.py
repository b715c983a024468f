"""Colours of boxes on pictures, RGB: the same on every page and sheet.

Colour is never the only mark: pages draw true boxes as corners.
"""

TRUE_COLOUR = (70, 220, 110)
PREDICTED_COLOUR = (255, 150, 40)
