"""BLEU-1..4, ROUGE-L and CIDEr of texts against references.

  BLEU     Papineni et al., ACL 2002: n-gram precision of the corpus,
           clipped, geometric mean over n, brevity penalty by the closest
           reference. No smoothing: 0 without a common n-gram.
  ROUGE-L  Lin, ACL Workshop 2004, eq. 2-4: longest common subsequence; best
           precision and best recall over the references, F with beta 1.2.
  CIDEr    Vedantam et al., CVPR 2015, its variant CIDEr-D (section 7), times
           10: tf-idf cosine of n-grams, n = 1..4, counts clipped, Gaussian
           penalty on the difference of lengths (sigma 6). Document frequencies
           are those of the references in the same call.

Choices that the papers leave open are those of the COCO caption evaluation
(beta; raw counts; lengths of CIDEr-D counted in bigrams), whose Python package
needs Java for tokenisation. Here `words` tokenises: lower case, no
punctuation. `RAW` splits as these scorers do without that tokenisation.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from fusar_jax.metrics import intervals

ORDERS = 4
BETA = 1.2
SIGMA = 6.0
NAMES = (*(f"bleu_{n}" for n in range(1, ORDERS + 1)), "rouge_l", "cider")

# Keys are ranked by a lookup table if it is at most this many times as long as
# the keys: sorting takes several times as long.
_TABLE_SIZE = 4

_WORD = re.compile(r"\w+(?:-\w+)*")


def words(text: str) -> list[str]:
  """Returns the words, in lower case: "Built-up area." has two."""
  return _WORD.findall(text.lower())


@dataclasses.dataclass(frozen=True)
class Tokeniser:
  """How texts become words.

  Attributes:
    words: text -> words, for n-grams.
    in_order: text -> words, for ROUGE-L.
  """

  words: Callable[[str], list[str]]
  in_order: Callable[[str], list[str]]


WORDS = Tokeniser(words, words)
# COCO's ROUGE-L splits at every single space, so two give an empty word.
RAW = Tokeniser(str.split, lambda text: text.split(" "))


@dataclasses.dataclass(frozen=True, eq=False)
class TextScores:
  """Contribution of each of n texts to the scores.

  Attributes:
    matched: int64[n, 4], n-grams of n = 1..4 words that occur in a reference,
      clipped to the maximum count over references.
    offered: int64[n, 4], number of its n-grams.
    length: int64[n], words.
    reference_length: int64[n], words of the reference closest in length.
    rouge_l: float64[n] in [0, 1].
    cider: float64[n] in [0, 10].
  """

  matched: np.ndarray
  offered: np.ndarray
  length: np.ndarray
  reference_length: np.ndarray
  rouge_l: np.ndarray
  cider: np.ndarray


def compare(
  texts: Sequence[str],
  references: Sequence[Sequence[str]],
  tokeniser: Tokeniser = WORDS,
) -> TextScores:
  """Compares each text with its references.

  Args:
    texts: n texts; one without words matches nothing.
    references: at least one text for each of them.
    tokeniser: WORDS or RAW.

  Raises:
    ValueError: no texts, not one list of references per text, or an empty one.

  Example: two of three words in order, and no pair of words.
    >>> found = compare(["ships near land"], [["ships leave land"]])
    >>> found.matched.tolist(), round(float(found.rouge_l[0]), 4)
    ([[2, 0, 0, 0]], 0.6667)
  """
  if len(texts) != len(references) or not all(references):
    raise ValueError(
      f"expected references for each of {len(texts)} texts, got"
      f" {len(references)} lists, {sum(not r for r in references)} of them"
      " empty."
    )
  if not texts:
    raise ValueError("expected at least one text.")
  # The first lookup of a word assigns the next number.
  vocabulary: dict[str, int] = collections.defaultdict()
  vocabulary.default_factory = vocabulary.__len__

  def numbers(split):
    def of(text):
      return list(map(vocabulary.__getitem__, split(text)))

    return list(map(of, texts)), [list(map(of, one)) for one in references]

  given, true = numbers(tokeniser.words)
  matched, offered, cider = _ngrams(given, true, len(vocabulary))
  length = np.array([len(text) for text in given])
  closest = [
    min((abs(len(one) - len(text)), len(one)) for one in of)[1]
    for text, of in zip(given, true)
  ]
  if tokeniser.in_order is not tokeniser.words:
    given, true = numbers(tokeniser.in_order)
  rouge = np.array([_rouge_l(text, of) for text, of in zip(given, true)])
  return TextScores(matched, offered, length, np.array(closest), rouge, cider)


def bleu(matched, offered, length, reference_length) -> np.ndarray:
  """Returns float64[..., 4], BLEU-1 to BLEU-4 of a corpus.

  Args:
    matched, offered: [..., 4], sums over the corpus, see TextScores.
    length, reference_length: [...], sums over the corpus.
  """
  matched, offered = np.asarray(matched, float), np.asarray(offered, float)
  length = np.asarray(length, float)[..., None]
  reference_length = np.asarray(reference_length, float)[..., None]
  with np.errstate(divide="ignore", invalid="ignore"):
    logs = np.log(matched / offered).cumsum(-1) / np.arange(1, ORDERS + 1)
    brief = np.minimum(0, 1 - reference_length / length)
  return np.nan_to_num(np.exp(logs + brief), nan=0.0)


def summary(
  found: TextScores, images: Sequence[str]
) -> tuple[dict[str, float], dict[str, list[float]]]:
  """Returns the scores of NAMES, and 95 % bootstrap intervals over images.

  CIDEr's document frequencies are not resampled: they are a property of the
  data set.

  Args:
    found: of n texts.
    images: the image of each; texts of one image are resampled together.
  """
  lengths = np.stack([found.length, found.reference_length], 1)
  means = np.stack([found.rouge_l, found.cider, np.ones(len(images))], 1)
  counts = intervals.by_image(
    images, np.concatenate([found.matched, found.offered, lengths, means], 1)
  )

  def of_order(n):
    return lambda s: bleu(s[..., :4], s[..., 4:8], s[..., 8], s[..., 9])[..., n]

  rules = {
    **{NAMES[n]: of_order(n) for n in range(ORDERS)},
    "rouge_l": lambda s: s[..., 10] / s[..., 12],
    "cider": lambda s: s[..., 11] / s[..., 12],
  }
  total = counts.sum(0)
  values = {name: float(rule(total)) for name, rule in rules.items()}
  return values, intervals.bootstrap_all(counts, rules)


def common_subsequence(a: Sequence, b: Sequence) -> int:
  """Returns the length of the longest common subsequence.

  One bit per item of `a`, all updated at once for each item of `b`.
  Reference: H. Hyyro, Bit-Parallel LCS-length Computation Revisited, 2004.

  Example:
    >>> common_subsequence("abcbdab", "bdcaba")
    4
  """
  places: dict = {}
  for i, item in enumerate(a):
    places[item] = places.get(item, 0) | 1 << i
  everything = unused = (1 << len(a)) - 1
  for item in b:
    if item in places:
      hit = unused & places[item]
      unused = ((unused + hit) | (unused - hit)) & everything
  return len(a) - unused.bit_count()


def _rouge_l(text: Sequence[int], references) -> float:
  common = [common_subsequence(one, text) for one in references]
  if not any(common):
    return 0.0
  precision = max(common) / len(text)
  recall = max(k / len(one) for k, one in zip(common, references) if one)
  return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
  """Counts of n-grams per text.

  Attributes:
    key: int64[k], text * (number of n-grams) + n-gram; ascending.
    text, gram, count: int64[k].
  """

  key: np.ndarray
  text: np.ndarray
  gram: np.ndarray
  count: np.ndarray

  def counts_of(self, key: np.ndarray) -> np.ndarray:
    """Returns the count at each key; 0 if absent."""
    if not len(self.key):
      return np.zeros(len(key), np.int64)
    place = np.minimum(np.searchsorted(self.key, key), len(self.key) - 1)
    return np.where(self.key[place] == key, self.count[place], 0)


def _tables(columns, vocabulary: int):
  """Yields the tables of the columns of texts, for n-grams of 1 to 4 words.

  All words of all texts are concatenated, so the number of an n-gram follows
  from its first n-1 words and the last one.
  """
  flat = [
    np.fromiter(itertools.chain.from_iterable(texts), np.int64)
    for texts in columns
  ]
  number = np.concatenate(flat)
  ends = np.cumsum([len(numbers) for numbers in flat]).tolist()
  text = np.concatenate(
    [np.repeat(np.arange(len(c)), [len(t) for t in c]) for c in columns]
  )
  gram, grams = number, vocabulary
  for order in range(ORDERS):
    if order:
      pairs = gram[:-1] * vocabulary + number[order:]
      gram, grams = _ranks(pairs, grams * vocabulary)
    tables = []
    for start, end in itertools.pairwise([0, *ends]):
      last = max(start, end - order)
      of = text[start:last]
      within = of == text[start + order : end]
      key, count = _counted((of * grams + gram[start:last])[within])
      tables.append(_Table(key, key // grams, key % grams, count))
    yield tables, grams


def _ranks(keys: np.ndarray, limit: int) -> tuple[np.ndarray, int]:
  """Returns the rank of each key among the distinct ones, and their number.

  Args:
    keys: int64[n], all below `limit`.
  """
  if limit >= _TABLE_SIZE * len(keys):
    distinct, ranks = np.unique(keys, return_inverse=True)
    return ranks, len(distinct)
  occurs = np.zeros(limit, np.int64)
  occurs[keys] = 1
  ranks = np.cumsum(occurs) - 1
  return ranks[keys], int(ranks[-1]) + 1


def _counted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the distinct keys, ascending, and the count of each.

  Equivalent to np.unique, which hashes: for millions of keys, hashing is far
  slower than sorting.
  """
  keys = np.sort(keys)
  first = np.flatnonzero(np.diff(keys, prepend=keys[:1] - 1))
  return keys[first], np.diff(first, append=len(keys))


def _ngrams(given, true, vocabulary: int):
  """Returns (matched [n, 4], offered [n, 4], cider [n])."""
  n = len(given)
  # The k-th reference of every text, empty if it has fewer.
  slots = range(max(map(len, true)))
  columns = [given] + [
    [of[k] if k < len(of) else [] for of in true] for k in slots
  ]
  # Per reference; COCO measures lengths in bigrams.
  pairs = [np.array([max(len(t) - 1, 0) for t in c]) for c in columns]
  penalty = [
    np.exp(-((pairs[0] - other) ** 2) / (2 * SIGMA**2)) for other in pairs[1:]
  ]
  matched, offered = np.zeros((2, n, ORDERS), np.int64)
  similar = np.zeros(n)
  for order, (tables, grams) in enumerate(_tables(columns, vocabulary)):
    mine, *others = tables
    same = [other.counts_of(mine.key) for other in others]
    clipped = np.minimum(mine.count, np.maximum.reduce(same))
    matched[:, order] = np.bincount(mine.text, clipped, n)
    offered[:, order] = np.bincount(mine.text, mine.count, n)
    cosines = _cosines(tables, same, grams, n)
    similar += sum(cosine * short for cosine, short in zip(cosines, penalty))
  references = np.array([len(of) for of in true])
  return matched, offered, 10 * similar / (ORDERS * references)


def _cosines(tables, same, grams: int, n: int) -> list[np.ndarray]:
  """Returns the tf-idf cosine of each text with each reference, clipped."""
  mine, *others = tables
  # A text counts once, even if several of its references contain the n-gram.
  holding, _ = _counted(np.concatenate([table.key for table in others]))
  frequency = np.bincount(holding % grams, minlength=grams)
  weight = np.log(n) - np.log(np.maximum(frequency, 1))
  norm, *norms = (
    np.sqrt(np.bincount(t.text, (t.count * weight[t.gram]) ** 2, n))
    for t in tables
  )
  cosines = []
  for count, other in zip(same, norms):
    both = np.minimum(mine.count, count) * count * weight[mine.gram] ** 2
    dot, scale = np.bincount(mine.text, both, n), norm * other
    cosines.append(np.divide(dot, scale, out=np.zeros(n), where=scale > 0))
  return cosines
