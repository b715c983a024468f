"""Grammar of well-formed box lists, enforced by `--constrain json`.

    [{"bbox_2d": [x1, y1, x2, y2], "label": "ship"}, ...]    or    None

The published prompt requests this format and `fusar_jax.tasks.boxes` writes it.
White space follows JSON but is bounded, so that an answer cannot be padded
endlessly: one blank, or, outside the four numbers, a line feed and an indent.
"""

import functools
import string

from fusar_jax.inference.automaton import (
  Automaton,
  chain,
  compiled,
  either,
  one_of,
  repeated,
  text,
  up_to,
  whole_number,
)

# Characters of a JSON string that need no escape.
_PLAIN = set(string.printable) - set('"\\' + string.whitespace) | {" "}
_INDENT = 4
# Characters; without a bound, an unsure model fills its cap with one label.
_LABEL = 40


@functools.cache
def box_list(size: tuple[int, int]) -> Automaton:
  """Returns the automaton of answers for an image of size (height, width).

  x is an integer in 0..width, y in 0..height. A label has 1 to 40 characters.
  x1 <= x2 is not enforced, which would take a state for every x1; `parse_boxes`
  swaps inverted corners and reports it.

  Example:
    >>> inside = '[{"bbox_2d": [0, 1, 84, 56], "label": "ship"}]'
    >>> language = box_list((56, 84))
    >>> language.accepts(inside), language.accepts(inside.replace("56", "57"))
    (True, False)
  """
  height, width = size
  blank = up_to(1, text(" "))
  line = chain(text("\n"), up_to(_INDENT, one_of(" \t")))
  gap = either(blank, line)
  x, y, comma = whole_number(width), whole_number(height), text(",")

  def spaced(space, *parts):
    """The parts, with white space between them."""
    return chain(parts[0], *(p for part in parts[1:] for p in (space, part)))

  numbers = spaced(blank, x, comma, y, comma, x, comma, y)
  corners = spaced(blank, text("["), numbers, text("]"))
  letter = one_of(_PLAIN, other=True)
  label = chain(text('"'), letter, up_to(_LABEL - 1, letter), text('"'))
  where = spaced(blank, text('"bbox_2d"'), text(":"), corners)
  what = spaced(blank, text('"label"'), text(":"), label)
  box = spaced(gap, text("{"), where, comma, what, text("}"))
  more = repeated(chain(gap, comma, gap, box))
  boxes = chain(spaced(gap, text("["), box), more, gap, text("]"))
  return compiled(either(text("None"), boxes))
