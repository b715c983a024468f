"""Assignment of groups to splits: stratified by label, deterministic.

Groups are taken from large to small, in random order within one size. Each goes
to the split that it fills least: the mean, over the labels of the group, of the
share of the target count that the split would then have. For single items this
is D'Hondt's method per label, which meets integer targets exactly.
"""

import collections
from collections.abc import Hashable, Mapping, Sequence

import numpy as np


def parse_shares(texts: Sequence[str]) -> dict[str, float]:
  """Returns the shares of "train=0.7,test=0.3", in the given order.

  Args:
    texts: NAME=SHARE each, or several separated by commas.

  Raises:
    ValueError: a malformed share, a duplicate name, or shares that do not sum
      to 1.
  """
  parts = [part for text in texts for part in text.split(",") if part.strip()]
  shares = {}
  for part in parts:
    name, _, share = (word.strip() for word in part.partition("="))
    try:
      value = float(share)
    except ValueError:
      value = -1.0
    if not name or "/" in name or name in (".", "..") or not 0 < value <= 1:
      raise ValueError(
        f"share {part!r}: expected NAME=SHARE with a share in (0, 1], such as"
        " train=0.7."
      )
    if name in shares:
      raise ValueError(f"share {part!r}: {name!r} is given twice.")
    shares[name] = value
  if abs(sum(shares.values()) - 1) > 1e-6:
    raise ValueError(
      f"shares {shares} sum to {sum(shares.values()):g}, expected 1."
    )
  return shares


def assign(
  groups: Sequence[Hashable],
  labels: Sequence[str],
  shares: Mapping[str, float],
  seed: int = 0,
) -> list[str]:
  """Returns the split of each item.

  Args:
    groups: of each item; items of one group are never separated.
    labels: of each item; the splits get equal shares of each label, as far as
      the groups allow.
    shares: split -> share of the items, summing to 1.
    seed: selects among assignments of the same quality.

  Raises:
    ValueError: a split stays empty.

  Example:
    >>> assign([0, 0, 1, 2], ["ship"] * 4, {"train": 0.5, "test": 0.5})
    ['train', 'train', 'test', 'test']
  """
  names, kinds = list(shares), sorted(set(labels))
  column = {label: i for i, label in enumerate(kinds)}
  counts = collections.defaultdict(lambda: np.zeros(len(kinds)))
  for group, label in zip(groups, labels, strict=True):
    counts[group][column[label]] += 1
  target = np.outer(list(shares.values()), sum(counts.values()))
  filled = np.zeros_like(target)
  order = np.random.default_rng(seed).permutation(len(counts))
  members = list(counts.items())
  chosen = {}
  for at in sorted(order, key=lambda i: -members[i][1].sum()):
    group, count = members[at]
    fill = ((filled + count) / target) @ count
    # Rounding must not decide between equal splits.
    best = int(np.argmin(fill.round(9)))
    filled[best] += count
    chosen[group] = names[best]
  empty = [name for name in names if name not in chosen.values()]
  if empty:
    raise ValueError(
      f"{len(counts)} groups do not fill the splits {', '.join(names)}:"
      f" {', '.join(empty)} would be empty. Rows that share an image, a near"
      " duplicate or a scene are one group; split fewer ways, or group by less."
    )
  return [chosen[group] for group in groups]
