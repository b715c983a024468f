"""The files of the page, and the headers that confine it."""

import re
from importlib import resources
from pathlib import Path

from starlette.responses import Response

from fusar_jax.serving.limits import RequestError

_POLICY = "; ".join(
  (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  )
)
_HEADERS = {
  "Content-Security-Policy": _POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-cache",
}
_TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
}
_STATIC = re.compile(r"[a-z_]+\.(?:html|css|js|svg)", re.ASCII)


def static_file(name: str) -> Response:
  """Returns a file of the page.

  Args:
    name: in `static/`, or theme.css, which all pages of the package share.

  Raises:
    RequestError: 404, there is no such file.
  """
  if not _STATIC.fullmatch(name):
    raise RequestError(404, "no such file.")
  file = resources.files("fusar_jax.serving").joinpath("static", name)
  if name == "theme.css":
    file = resources.files("fusar_jax.report").joinpath(name)
  try:
    content = file.read_bytes()
  except FileNotFoundError:
    raise RequestError(404, "no such file.") from None
  return Response(content, 200, _HEADERS, _TYPES[Path(name).suffix])
