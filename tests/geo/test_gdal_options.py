"""GDAL's settings: complete, overridable, anonymous by default."""

import os

import pytest

from fusar_jax.geo import gdal_options


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
  for name in list(os.environ):
    if name.startswith(("GS_", "AWS_", "GOOGLE_", "GDAL_", "CPL_")):
      monkeypatch.delenv(name)
  monkeypatch.setenv("HOME", str(tmp_path))


def test_public_buckets_need_no_account():
  options = gdal_options.gdal_options()
  assert (
    options["GS_NO_SIGN_REQUEST"] == options["AWS_NO_SIGN_REQUEST"] == "YES"
  )
  assert options["AWS_REGION"] == "us-west-2"
  assert ".tiff" in options["CPL_VSIL_CURL_ALLOWED_EXTENSIONS"].split(",")
  assert not gdal_options.is_signed("gs")


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("gs", "GS_USER_PROJECT"),
    ("gs", "GOOGLE_APPLICATION_CREDENTIALS"),
    ("s3", "AWS_ACCESS_KEY_ID"),
    ("s3", "AWS_PROFILE"),
  ],
)
def test_an_account_signs_the_requests_of_its_buckets(monkeypatch, kind, name):
  monkeypatch.setenv(name, "mine")
  options = gdal_options.gdal_options()
  assert ("GS_NO_SIGN_REQUEST" in options) == (kind != "gs")
  assert ("AWS_NO_SIGN_REQUEST" in options) == (kind != "s3")
  assert gdal_options.is_signed(kind)


def test_a_file_of_credentials_is_an_account(tmp_path):
  (tmp_path / ".aws").mkdir()
  (tmp_path / ".aws" / "credentials").write_text("[default]\n")
  assert "AWS_NO_SIGN_REQUEST" not in gdal_options.gdal_options()


def test_the_environment_takes_precedence(monkeypatch):
  monkeypatch.setenv("GDAL_HTTP_MULTIPLEX", "NO")
  monkeypatch.setenv("GS_NO_SIGN_REQUEST", "NO")
  monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
  options = gdal_options.gdal_options()
  for name in ("GDAL_HTTP_MULTIPLEX", "GS_NO_SIGN_REQUEST", "AWS_REGION"):
    assert name not in options
  assert gdal_options.is_signed("gs")
