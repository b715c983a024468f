"""GDAL's settings for reading AlphaEarth tiles, and scenes at URLs.

Published tiles are BigTIFFs of 1 to 3 GB in public buckets: 64 bands one after
another, in compressed blocks of about 0.5 MB, behind a header of 64 kB. The
settings read the header in one request, merge neighbouring blocks into one,
wait out an overloaded server, give up on a silent one, and read public buckets
without an account.

Each setting is an environment variable of the same name, and the environment
takes precedence.
"""

import os
import re
from pathlib import Path
from typing import Any

# Values in bytes and seconds, except GDAL_CACHEMAX in MB.
_SETTINGS: dict[str, Any] = {
  # Published tiles have no sidecar files, and listing a folder is slow.
  "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
  "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff,.vrt",
  "GDAL_INGESTED_BYTES_AT_OPEN": 65536,
  "CPL_VSIL_CURL_CACHE_SIZE": 268435456,
  "VSI_CACHE": "YES",
  "GDAL_HTTP_VERSION": "2TLS",
  "GDAL_HTTP_MULTIPLEX": "YES",
  "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
  # 429, 500, 502, 503 and 504; the delay doubles.
  "GDAL_HTTP_MAX_RETRY": 4,
  "GDAL_HTTP_RETRY_DELAY": "0.5",
  "GDAL_HTTP_CONNECTTIMEOUT": 20,
  "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
  "GDAL_HTTP_LOW_SPEED_TIME": 60,
  "GDAL_CACHEMAX": 128,
  # Of the mirror; GDAL follows a bucket to another region.
  "AWS_REGION": "us-west-2",
}
_UNSIGNED = {"gs": "GS_NO_SIGN_REQUEST", "s3": "AWS_NO_SIGN_REQUEST"}
# Any of these in the environment is an account to sign with.
_ACCOUNTS = {
  "gs": (
    "GS_USER_PROJECT", "GS_SECRET_ACCESS_KEY", "GS_ACCESS_KEY_ID",
    "GS_OAUTH2_REFRESH_TOKEN", "GS_OAUTH2_PRIVATE_KEY",
    "GS_OAUTH2_PRIVATE_KEY_FILE", "GOOGLE_APPLICATION_CREDENTIALS",
    "CPL_GS_CREDENTIALS_FILE", "GDAL_HTTP_HEADERS", "GDAL_HTTP_HEADER_FILE",
  ),
  "s3": (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_REQUEST_PAYER",
  ),
}  # fmt: skip
_ACCOUNT_FILES = {"gs": ("~/.boto",), "s3": ("~/.aws/credentials",)}
_YES = re.compile(r"yes|true|on|1", re.I)


def gdal_options() -> dict[str, Any]:
  """Returns the settings to give to `rasterio.Env`.

  Those in the environment are left out, so theirs apply. Buckets are read
  without an account unless one is configured: in the environment, in
  ~/.aws/credentials or in ~/.boto. GS_NO_SIGN_REQUEST=NO makes a machine of
  Google Cloud use its own account.
  """
  found = dict(_SETTINGS)
  found |= {
    name: "YES" for kind, name in _UNSIGNED.items() if not has_account(kind)
  }
  if "AWS_DEFAULT_REGION" in os.environ:
    del found["AWS_REGION"]
  return {k: v for k, v in found.items() if k not in os.environ}


def has_account(kind: str) -> bool:
  """Returns whether an account is configured for "gs" or "s3"."""
  if any(os.environ.get(name) for name in _ACCOUNTS[kind]):
    return True
  return any(Path(name).expanduser().is_file() for name in _ACCOUNT_FILES[kind])


def is_signed(kind: str) -> bool:
  """Returns whether requests to "gs" or "s3" carry an account."""
  stated = os.environ.get(_UNSIGNED[kind])
  if stated is not None:
    return not _YES.fullmatch(stated)
  return has_account(kind)
