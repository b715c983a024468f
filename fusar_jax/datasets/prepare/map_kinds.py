"""Which features of public maps are buildings, roads, water and so on.

Attributes are read as they are in

  OpenStreetMap  tags as columns (building, highway, natural, ...), others in
                 "other_tags" as ogr2ogr writes them
  Geofabrik      the column "fclass" of its Shapefiles
  Overture       the columns "subtype" and "class" of its Parquet files

A file without such attributes has one kind, which the user names.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

# Groups of kinds: a map that can contain one of a group can contain all.
GROUPS = {
  "buildings": ("building",),
  "roads": ("road",),
  "aeroways": ("runway", "apron", "airport"),
  "piers": ("pier", "port"),
  "water": ("sea", "lake", "river"),
  "landforms": ("landform",),
}
KINDS = tuple(kind for kinds in GROUPS.values() for kind in kinds)
# Attribute -> the group of which it is a sign.
_SIGNS = {
  "building": "buildings",
  "highway": "roads",
  "aeroway": "aeroways",
  "man_made": "piers",
  "landform": "landforms",
  # Of Overture.
  "num_floors": "buildings",
  "road_surface": "roads",
}
# Parts of Geofabrik's file names.
_NAMES = {"_buildings_": "buildings", "_roads_": "roads"}
# Ways for feet, bicycles and horses, and areas that are no roads.
_NO_ROADS = (
  *("footway", "path", "steps", "cycleway", "bridleway", "corridor"),
  *("pedestrian", "platform", "elevator", "proposed", "construction"),
  *("sidewalk", "crosswalk", "rest_area", "services", "bus_stop", "crossing"),
  *("street_lamp", "traffic_signals", "stop", "give_way", "turning_circle"),
)
_ROADS = (
  *("motorway", "trunk", "primary", "secondary", "tertiary", "unclassified"),
  *("residential", "living_street", "service", "track", "road"),
  *("motorway_link", "trunk_link", "primary_link", "secondary_link"),
  *("tertiary_link", "busway", "raceway", "track_grade1", "track_grade2"),
  *("track_grade3", "track_grade4", "track_grade5", "unknown"),
)
_RIVERS = ("river", "stream", "canal", "drain", "ditch", "riverbank")
_LAKES = ("lake", "pond", "reservoir", "basin", "oxbow", "lagoon")
_SEAS = ("bay", "strait", "ocean", "sea", "coastline")
_OTHER_TAG = re.compile(r'"((?:[^"\\]|\\.)*)"=>"((?:[^"\\]|\\.)*)"')
_NONE = (None, "", "no")


def groups_of(columns: Collection[str], name: str) -> set[str]:
  """Returns the groups that a file can contain, by its columns and name."""
  found = {_SIGNS[column] for column in columns if column in _SIGNS}
  return found | {group for part, group in _NAMES.items() if part in name}


def tags_of(properties: Mapping[str, Any]) -> dict[str, str]:
  """Returns the attributes as text, those in "other_tags" among them.

  Example:
    >>> tags_of({"highway": None, "other_tags": '"natural"=>"bay"'})
    {'natural': 'bay'}
  """
  tags = {
    str(key): str(value).strip()
    for key, value in properties.items()
    if value not in _NONE and value == value
  }
  further = dict(_OTHER_TAG.findall(tags.pop("other_tags", "")))
  return {**further, **tags}


def kind_of(tags: Mapping[str, str]) -> str | None:
  """Returns one of KINDS, or None for a feature of another kind.

  Args:
    tags: of `tags_of`.

  Example:
    >>> kind_of({"natural": "water", "water": "lake"})
    'lake'
  """
  return _osm(tags) or _of_class(tags.get("fclass"), tags) or _overture(tags)


def _osm(tags) -> str | None:
  if "landform" in tags:
    return "landform"
  if "building" in tags or "building:part" in tags:
    return "building"
  if tags.get("aeroway") in ("runway", "apron"):
    return tags["aeroway"]
  if tags.get("aeroway") == "aerodrome":
    return "airport"
  if tags.get("man_made") == "pier":
    return "pier"
  if (
    "harbour" in tags
    or tags.get("landuse") == "port"
    or tags.get("industrial") == "port"
    or tags.get("leisure") == "marina"
  ):
    return "port"
  if tags.get("highway") in _ROADS:
    return "road"
  if tags.get("natural") in _SEAS:
    return "sea"
  if tags.get("waterway") in _RIVERS:
    return "river"
  if tags.get("natural") == "water" or "water" in tags:
    return _water(tags.get("water"))
  return None


def _of_class(name, tags) -> str | None:
  """Returns the kind that Geofabrik's class names."""
  if name is None:
    return None
  if name in ("building", "runway", "apron", "pier"):
    return name
  if name in _ROADS:
    return "road"
  if name == "airport" or name == "airfield":
    return "airport"
  if name == "marina":
    return "port"
  return _water(name) or ("sea" if name in _SEAS else None)


def _water(name) -> str | None:
  for kind, names in (("river", _RIVERS), ("lake", _LAKES), ("sea", _SEAS)):
    if name in names:
      return kind
  return None


def _overture(tags) -> str | None:
  subtype, name = tags.get("subtype"), tags.get("class")
  if tags.get("overture") == "building":
    return "building"
  if subtype == "road":
    return None if name in _NO_ROADS else "road"
  if subtype == "airport":
    if name in ("runway", "apron"):
      return name
    return "airport" if name and "airport" in name else None
  if subtype == "pier":
    return "pier"
  return _water(subtype)


def number(text: str | None) -> float | None:
  """Returns metres of a tag such as "12", "12.5 m"; None for others.

  Example:
    >>> number("12.5 m"), number("40 ft"), number(None)
    (12.5, None, None)
  """
  found = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,6})?)\s*(?:m)?\s*", text or "")
  return float(found[1]) if found else None
