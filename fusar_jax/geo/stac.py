"""STAC items as scenes: which of their files are polarisations.

An item is GeoJSON with assets, {"vv": {"href": "https://...tiff", ...}, ...}. A
polarisation's file is a TIFF whose key or name has the polarisation in it;
angles, masks, schemas and thumbnails are none. A collection of items (the
answer of a search) holds several scenes, each "FILE.json#ID".

Hrefs without a scheme are relative to the item, so an item of a URL names no
local file.
"""

import dataclasses
import http.client
import posixpath
import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.geo.product_names import find_polarisations
from fusar_jax.geo.remote_file import AGENT, INVALID
from fusar_jax.io.strict_json import parse

# A page of a search has up to 1000 items of some kB each.
MAX_BYTES = 1 << 26
MAX_ITEMS = 1000
_SECONDS = 30.0
_JSON = (".json", ".geojson")
_SCHEMES = ("http", "https", "s3", "gs")
# Shown first: co-polarised ones.
_ORDER = ("VV", "HH", "VH", "HV")


@dataclasses.dataclass(frozen=True)
class Item:
  """A scene of an item.

  Attributes:
    name: its id.
    hrefs: by polarisation, co-polarised first; {"": href} if the item has one
      TIFF, of an unknown polarisation.
    tags: platform and start as GDAL's IMAGERY domain names them.
  """

  name: str
  hrefs: dict[str, str]
  tags: dict[str, str]


def restored(path: Path) -> str:
  """Returns the text of a path or URL, whose slashes Path() has merged.

  Example:
    >>> restored(Path("https://host/a.tif"))
    'https://host/a.tif'
  """
  return re.sub(rf"^({'|'.join(_SCHEMES)}):/+", r"\1://", path.as_posix())


def shown(path: Path) -> str:
  """Returns the text of a path or URL for messages: without secrets.

  Example:
    >>> shown(Path("https://me:key@host/items.json?sig=1#scene"))
    'https://host/items.json#scene'
  """
  file, mark, item = restored(path).partition("#")
  return without_secrets(file) + mark + item


def is_url(path: Path) -> bool:
  return "://" in restored(path)


def is_item(path: Path) -> bool:
  """Whether a path names a JSON file or an item of a STAC API."""
  text = _without_query(restored(path).partition("#")[0])
  if text.lower().endswith(_JSON):
    return True
  return is_url(path) and re.search(r"/items/[^/]+$", text) is not None


def expand(path: Path) -> list[Path]:
  """Returns the scenes of a path: "FILE#ID" for each item of a collection.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not STAC; the message names it.
  """
  if not is_item(path) or "#" in restored(path):
    return [path]
  features = _features(path)
  if features is None:
    return [path]
  return [Path(f"{restored(path)}#{each['id']}") for each in features]


def read_item(path: Path) -> Item:
  """Returns the item of a path as `expand` gives them.

  Raises:
    FileNotFoundError, ValueError: as `expand`, or without a usable asset.
  """
  text, _, name = restored(path).partition("#")
  source = Path(text)
  features = _features(source)
  if features is None:
    found = _read(source)
  else:
    chosen = [each for each in features if each["id"] == name]
    if len(chosen) != 1:
      raise ValueError(
        f"{shown(source)}: {len(chosen)} items named {name!r}; there are"
        f" {', '.join(str(each['id']) for each in features)}."
      )
    found = chosen[0]
  hrefs = _polarisations(found, source)
  known = found.get("properties")
  known = known if isinstance(known, dict) else {}
  start = known.get("start_datetime") or known.get("datetime")
  tags = {"SATELLITEID": known.get("platform"), "ACQUISITIONDATETIME": start}
  return Item(
    found["id"], hrefs, {k: v for k, v in tags.items() if isinstance(v, str)}
  )


def _polarisations(item, source: Path) -> dict[str, str]:
  where = f"{shown(source)}: item {item['id']}"
  found, tiffs = {}, []
  for key, asset in item["assets"].items():
    if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
      raise ValueError(f"{where}: asset {key!r} has no href.")
    href = asset["href"]
    stem = posixpath.basename(_without_query(href)).rpartition(".")
    if stem[2].lower() not in ("tif", "tiff"):
      continue
    tiffs.append(href)
    for text in (key, stem[0]):
      if names := find_polarisations((text,)):
        if names[0] in found:
          raise ValueError(
            f"{where}: several files of {names[0]}: {key!r} and another; give"
            " one of the files itself."
          )
        found[names[0]] = href
        break
  if not found and len(tiffs) == 1:
    found = {"": tiffs[0]}
  if not found:
    raise ValueError(
      f"{where}: no TIFF of a polarisation among the assets"
      f" {', '.join(item['assets'])}; expected keys or names with VV, VH, HH or"
      " HV."
    )
  return {
    name: _absolute(found[name], source)
    for name in ("", *_ORDER)
    if name in found
  }


def _absolute(href: str, source: Path) -> str:
  try:
    if urllib.parse.urlsplit(href).scheme in _SCHEMES:
      return href
    if not is_url(source):
      return str(source.absolute().parent / href)
    joined = urllib.parse.urljoin(restored(source), href)
    known = urllib.parse.urlsplit(joined).scheme in _SCHEMES
  except ValueError:  # As of brackets that hold no IPv6 address.
    known = False
  if not known:
    raise ValueError(
      f"{shown(source)}: href {without_secrets(href)!r} is no web address."
    )
  return joined


def _features(source: Path) -> list[dict[str, Any]] | None:
  """The items of a collection; None for one item."""
  found = _read(source)
  if found.get("type") != "FeatureCollection":
    return None
  features = found.get("features")
  if not isinstance(features, list) or not 0 < len(features) <= MAX_ITEMS:
    raise ValueError(
      f"{shown(source)}: expected 1 to {MAX_ITEMS} items as features."
    )
  for number, each in enumerate(features, 1):
    _check(each, f"{shown(source)}: feature {number}")
  return features


def _read(source: Path) -> dict[str, Any]:
  try:
    content = _fetch(source) if is_url(source) else _local(source)
    if len(content) > MAX_BYTES:
      raise ValueError(f"more than {MAX_BYTES:,} bytes")
    found = parse(content.decode("utf-8-sig"))
  except ValueError as error:
    raise ValueError(f"{shown(source)}: not a STAC item: {error}") from None
  if not isinstance(found, dict) or found.get("type") != "FeatureCollection":
    _check(found, shown(source))
  return found


def _check(item, where) -> None:
  if (
    not isinstance(item, dict)
    or item.get("type") != "Feature"
    or not isinstance(item.get("id"), str)
    or not item["id"].strip("./ ")
    or not isinstance(item.get("assets"), dict)
  ):
    raise ValueError(
      f"{where}: expected a STAC item: a Feature with id and assets, or a"
      " FeatureCollection of them."
    )


def _local(source: Path) -> bytes:
  if not source.is_file():
    raise FileNotFoundError(f"SAR raster not found: {source}")
  with source.open("rb") as file:
    return file.read(MAX_BYTES + 1)


def _fetch(source: Path) -> bytes:
  url = restored(source)
  if not url.startswith(("http://", "https://")):
    raise ValueError("items are read from files and from http(s) addresses")
  request = urllib.request.Request(url, headers={"User-Agent": AGENT})
  try:
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
      return answer.read(MAX_BYTES + 1)
  except http.client.InvalidURL:
    # Its text is that of the address, password and signature included.
    raise ValueError(INVALID) from None
  except (OSError, http.client.HTTPException) as error:
    raise ValueError(f"cannot be fetched: {error}") from None


def _without_query(text: str) -> str:
  return text.partition("?")[0] if "://" in text else text
