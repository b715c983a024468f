"""The version of the package, for whoever inside it needs it."""

__version__ = "0.1.0"
