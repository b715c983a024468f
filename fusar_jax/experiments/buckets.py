"""What rows of simulated scenes are padded to, in tokens of the tiny base.

Each shape is a program to compile, which takes as long as some fifteen steps of
16 rows on 2 cores: short runs do better with the longest of them alone.
"""

# Prompt, visual tokens and answer together.
LENGTHS = (96, 160, 240)
# The shortest one of them that holds all captions, or all tasks.
LONGEST = {"captions": (160,), "tasks": (240,)}
# The answer's part.
ANSWERS = (128,)
