"""Why a remote file could not be read, and what to do about it.

GDAL reports a denied bucket, a missing tile and a dead network alike: the file
is "not recognized". The cause is in its text alone.
"""

import re

from fusar_jax.geo.gdal_options import is_signed

_DENIED = re.compile(
  r"\b40[13]\b|AccessDenied|Access ?Denied|Forbidden|UserProjectMissing"
  r"|requester pays|Anonymous caller|InvalidAccessKeyId|InvalidCredentials"
  r"|SignatureDoesNotMatch|PERMISSION_DENIED|No valid (AWS|GCP) credentials"
  r"|ExpiredToken",
  re.I,
)
_UNREACHABLE = re.compile(
  r"CURL error|resolve host|timed? ?out|connection|transfer closed|\b429\b"
  r"|\b50[0234]\b|SlowDown|ServiceUnavailable|InternalError|partial file"
  r"|request for .* failed",
  re.I,
)


def explain(path: str, cause: str) -> OSError | None:
  """Returns the error of a remote path by the text of GDAL's; None: another.

  Args:
    path: as shown to users, in GDAL's form or as a URL.
    cause: GDAL's message.

  Example:
    >>> type(explain("/vsigs/b/a.tiff", "HTTP response code: 403"))
    <class 'PermissionError'>
  """
  if _DENIED.search(cause):
    return PermissionError(denied(path))
  if _UNREACHABLE.search(cause):
    return ConnectionError(unreachable(path, cause))
  return None


def denied(path: str) -> str:
  """Returns the message for a file to which the server denies access."""
  if path.startswith(("gs://", "/vsigs/")):
    fix = (
      "If its reader pays, set GS_USER_PROJECT to your project and"
      " GOOGLE_APPLICATION_CREDENTIALS to the key file of an account"
    )
    fix += (
      ". GS_NO_SIGN_REQUEST=YES reads a public bucket without the account"
      if is_signed("gs")
      else "; it was asked without an account. On Google Cloud"
      " GS_NO_SIGN_REQUEST=NO uses the machine's own"
    )
  elif path.startswith(("s3://", "/vsis3/")):
    fix = (
      "The account may be expired or of another bucket; AWS_NO_SIGN_REQUEST=YES"
      " reads a public bucket without it"
      if is_signed("s3")
      else "It was asked without an account: set AWS_PROFILE, or"
      " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and"
      " AWS_REQUEST_PAYER=requester if its reader pays"
    )
  else:
    fix = (
      "A bucket whose reader pays is read as gs://BUCKET/... with"
      " GS_USER_PROJECT=PROJECT and an account; a signed URL may have expired"
    )
  return f"{path}: access denied (401 or 403). {fix}."


def unreachable(path: str, cause: object) -> str:
  """Returns the message for a network failure that outlasted the retries."""
  return (
    f"{path}: the network failed, after retries ({cause}). What was read is"
    " kept; the same command continues."
  )
