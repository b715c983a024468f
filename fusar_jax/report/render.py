"""Renders a page as one self-contained HTML file.

Templates are in `templates/`; `theme.css`, which the server's page shares,
`report.css` and scripts are embedded. The content security policy blocks every
external resource and every script except the embedded one, which it allows by
its hash. Autoescape is on: values from data
sets and models never reach the page as HTML.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

# Control characters become their visible symbols (U+2400 and above).
_VISIBLE = {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"}


def render(template: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
  """Returns the complete HTML of a page.

  Args:
    template: name of a file in `templates/`.
    scripts: names of the script files that the page needs, in order.
    **values: variables of the template; a missing one raises UndefinedError.
  """
  code = "".join(map(_read, scripts))
  digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
  return (
    _environment()
    .get_template(template)
    .render(
      css=Markup(_read("theme.css") + "\n" + _read("report.css")),
      script=Markup(code),
      script_hash=digest,
      **values,
    )
  )


def printable(text: str) -> str:
  """Returns text with control characters and lone surrogates made visible.

  Example:
    >>> printable("a\\x1b[31m")
    'a␛[31m'
  """
  return text.translate(_VISIBLE).encode("utf-8", "replace").decode()


def _finalize(value: Any) -> Any:
  if isinstance(value, str) and not isinstance(value, Markup):
    return printable(value)
  return value


def _read(name: str) -> str:
  return resources.files("fusar_jax.report").joinpath(name).read_text("utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("fusar_jax.report"),
    autoescape=True,
    finalize=_finalize,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.filters["json"] = functools.partial(
    json.dumps, indent=2, ensure_ascii=False
  )
  return environment
