"""What the command lines of `prepare` and `interpret` have in common."""

from collections.abc import Sequence

from fusar_jax.geo.alphaearth import Archive, open_archive


def open_aef(sources: Sequence[str], year: int | None) -> Archive:
  """Returns the archive of `--aef`; `year` is that of `--year`, or None.

  The year applies only to rasters whose names contain none; it must not
  override a year that a name contains.

  Raises:
    FileNotFoundError, ValueError: as `open_archive`.
  """
  try:
    return open_archive(sources)
  except ValueError:
    if year is None:
      raise
    return open_archive(sources, year=year)
