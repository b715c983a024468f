"""Describes mapped ground in the eight caption fields.

`ground` holds the maps, `measures` what is measured in them, `short` the terse
texts of simulated scenes and `sentences` the full ones of real scenes.
"""
