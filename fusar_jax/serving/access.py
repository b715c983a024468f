"""Who may use the server: a client of this machine, or one with the token.

Where no token is required, a web page that is open on this machine could reach
the server. It cannot name it as a client does, nor hide where it comes from.
"""

import hmac
from collections.abc import Collection

from fastapi import Request

from fusar_jax.serving.limits import RequestError


def is_public(path: str) -> bool:
  """Whether a path needs no token: it holds nothing of any user.

  The page is such: it asks for the token, and sends it.
  """
  return path in ("/", "/health") or path.startswith("/static/")


def expect_type(request: Request, kind: str) -> None:
  """Raises RequestError, 400, for a body of another type.

  Web pages of other origins cannot send the types that are expected here.
  """
  stated = request.headers.get("content-type", "").partition(";")[0].strip()
  if stated.lower() != kind:
    raise RequestError(400, f"Content-Type: expected {kind}.")


def check_access(
  request: Request, hosts: Collection[str] | None, token: str | None
) -> None:
  """Checks one request.

  Args:
    request: its headers are looked at.
    hosts: names in the Host header; None: any, and a page of any origin.
    token: the bearer; None: none.

  Raises:
    RequestError: 401, without the token; 403, under another name, or from a web
      page of another server.
  """
  if hosts is not None:
    host = request.url.hostname
    if host not in hosts:
      raise RequestError(403, f"this server is not {host}.")
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.url.netloc}"
    if origin is not None and origin != own:
      raise RequestError(403, "the page is of another server.")
  if token is None or is_public(request.url.path):
    return
  scheme, _, given = request.headers.get("authorization", "").partition(" ")
  right = hmac.compare_digest(given.encode(), token.encode())
  if scheme.lower() != "bearer" or not right:
    raise RequestError(401, "Authorization: expected Bearer and the token.")
