"""Each config field is documented, and docs/config.md is up to date."""

from pathlib import Path

from fusar_jax import config_reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "config.md"


def test_every_field_is_documented_and_no_other():
  meanings = config_reference.meanings()
  fields = set().union(*config_reference.values().values())
  assert meanings.keys() == fields
  assert min(map(len, meanings.values())) >= 2


def test_the_page_is_up_to_date():
  """To update: python -m fusar_jax.config_reference > docs/config.md"""
  assert PAGE.read_text(encoding="utf-8") == config_reference.markdown()
