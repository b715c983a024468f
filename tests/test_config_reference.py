"""Each config field is documented, and docs/config.md is up to date."""

from pathlib import Path

from fusar_jax import config_reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"


def test_every_field_of_every_config_has_a_meaning():
  told = config_reference.meanings()
  for stage, fields in config_reference.values().items():
    bare = [name for name in fields if len(told.get(name, "")) < 2]
    assert not bare, stage


def test_no_meaning_is_of_a_field_that_is_gone():
  fields = {
    name for flat in config_reference.values().values() for name in flat
  }
  assert set(config_reference.meanings()) <= fields


def test_the_page_is_up_to_date():
  """To update: python -m fusar_jax.config_reference > docs/config.md"""
  assert PAGE.read_text(encoding="utf-8") == config_reference.markdown()


def test_a_meaning_is_the_comment_above_an_assignment():
  source = """
  # First line,
  # second line.
  config.a.b = 3

  # Not of c: a blank line is between.

  config.c = 4
"""
  assert config_reference._comments(source) == {
    "a.b": "First line, second line."
  }
