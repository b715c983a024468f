"""Self-contained HTML documents: head, content security policy, base style.

The policy blocks all external resources and every script except the embedded
one, which it allows by hash. The style follows the reader's light or dark
scheme and adapts to phones. All pages of the project share it.
"""

import base64
import hashlib

from fusar_jax.report.sample_card import escape

_STYLE = """
:root { color-scheme: light dark; --back: #fdfdfc; --text: #1d2126;
  --quiet: #667079; --line: #dfe2e5; --panel: #f4f5f5; --accent: #1f6f54;
  --other: #e8eaea; --learned: #d3ecdf; --learned2: #bfe2d0;
  --error: #a8321f; --warning: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --back: #14171a;
  --text: #e3e6e8; --quiet: #949da6; --line: #2d3338; --panel: #1c2024;
  --accent: #63c99d; --other: #262b30; --learned: #1b4434;
  --learned2: #255843; --error: #ff8f78; --warning: #e5b45c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 5rem;
  background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; font-weight: 600; margin: 0; }
h2 { font-size: 1.15rem; font-weight: 600; margin: 3rem 0 0.8rem; }
h3 { font-size: 1rem; font-weight: 600; margin: 0;
  overflow-wrap: anywhere; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.quiet, caption, figcaption { color: var(--quiet); font-size: 0.87rem; }
p { margin: 0.3rem 0 0.8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 50%;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.28rem 0 0.28rem 2rem;
  border-bottom: 1px solid var(--line); font-weight: 400;
  vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
thead th { color: var(--quiet); font-size: 0.87rem; }
tr.group th, tr.group td { border-bottom-color: var(--quiet); }
details { border-bottom: 1px solid var(--line); padding: 0.35rem 0; }
summary { cursor: pointer; }
details li { font-size: 0.87rem; overflow-wrap: anywhere; }
.error { color: var(--error); font-weight: 600; }
.warning { color: var(--warning); font-weight: 600; }
.good { color: var(--accent); font-weight: 600; }
.plots { display: flex; flex-wrap: wrap; gap: 1.4rem 2rem; }
figure { margin: 0; width: 20rem; max-width: 100%; }
figure svg { width: 100%; display: block; }
.axis { color: var(--quiet); font-size: 11px; }
.task { color: var(--accent); font-weight: 400; margin-left: 0.6rem; }
"""


def document(
  title: str, body: str, *, style: str = "", script: str = ""
) -> str:
  """Returns the complete HTML of a page.

  Args:
    title: plain text; it is escaped here.
    body: HTML with its texts already escaped.
    style: CSS, appended to the base style.
    script: JavaScript, run after the body is parsed; the policy allows only
      this script, by its hash.
  """
  allowed = ""
  if script:
    digest = hashlib.sha256(script.encode()).digest()
    allowed = f"; script-src 'sha256-{base64.b64encode(digest).decode()}'"
    script = f"<script>{script}</script>\n"
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta http-equiv="Content-Security-Policy" content="default-src'
    f" 'none'; img-src data:; style-src 'unsafe-inline'{allowed}\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{escape(title)}</title>"
    f"<style>{_STYLE}{style}</style></head><body>\n"
    f"{body}\n{script}</body></html>\n"
  )
