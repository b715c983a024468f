"""Padding buckets for rows of simulated scenes, in tokens of the tiny base.

Each bucket is compiled separately, which takes as long as about fifteen steps
of 16 rows on 2 cores. Short runs are faster with the longest bucket alone.
"""

# Prompt, visual tokens and answer together.
LENGTHS = (96, 160, 240)
# The shortest bucket that fits all captions, or all tasks.
LONGEST = {"captions": (160,), "tasks": (240,)}
# Answer alone.
ANSWERS = (128,)
