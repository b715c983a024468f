"""RGB colours of boxes, shared by all pages and contact sheets.

Colour is never the only cue: pages draw true boxes as corners.
"""

TRUE_COLOUR = (70, 220, 110)
PREDICTED_COLOUR = (255, 150, 40)
