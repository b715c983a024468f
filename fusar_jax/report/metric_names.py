"""Names of scores in words, for tables, charts and pages.

JSON files keep the keys, such as "acc@100" and "within_1".
"""

import re

_NAMES = {
  ("counting", "accuracy"): "exact count",
  ("counting", "within_1"): "count within one",
  ("counting", "mae"): "mean absolute error, targets",
  ("grounding", "acc@100"): "all cells right",
  ("grounding", "acc@50"): "half of the cells found",
  ("grounding", "top1"): "first cell right",
  ("grounding", "jaccard"): "overlap of the cells (Jaccard)",
  ("classification", "accuracy"): "class right",
  ("classification", "coarse_accuracy"): "ship or plane right",
  ("classification", "invalid"): "not one of the choices",
  ("captioning", "accuracy"): "fields right",
  ("captioning", "word_f1"): "F1 of the words",
  ("vqa", "accuracy"): "answer right",
  ("vqa", "exact"): "same text",
  ("vqa", "option"): "right among options",
  ("vqa", "yes_no"): "right among yes and no",
  ("vqa", "number"): "right among numbers",
  ("vqa", "text"): "right among texts",
  ("vqa", "sarlang_substring"): "right by SARLANG's substring rule",
  ("vqa", "sarlang_undecided"): "undecided by SARLANG's rule",
}
_ANY_TASK = {
  "accuracy": "accuracy",
  "exact": "all statements right",
  "acc": "accuracy of statements",
  "rouge_l": "ROUGE-L",
  "cider": "CIDEr-D, 0 to 10",
}
_AT = {
  "f1": "F1",
  "precision": "precision",
  "recall": "recall",
  "acc": "accuracy",
}
_COCO = {
  "ap": "average precision (COCO)",
  "ap50": "average precision at IoU 0.5",
  "ap75": "average precision at IoU 0.75",
}


def in_words(task: str, name: str) -> str:
  """Returns the name of a score as readers see it; an unknown one as it is.

  Args:
    task, name: as in metrics.json.

  Example:
    >>> in_words("grounding", "acc@100"), in_words("detection", "f1@0.25")
    ('all cells right', 'F1 at IoU 0.25')
    >>> in_words("free-captioning", "raw_bleu_4")
    'BLEU-4, raw tokens'
  """
  if (task, name) in _NAMES:
    return _NAMES[task, name]
  if name.startswith("raw_"):
    return f"{in_words(task, name.removeprefix('raw_'))}, raw tokens"
  if name.startswith("coco "):
    part = name.removeprefix("coco ")
    return _COCO.get(part, f"average precision, {part.removeprefix('ap_')}")
  kind, _, threshold = name.partition("@")
  if threshold and kind in _AT:
    return f"{_AT[kind]} at IoU {threshold}"
  if bleu := re.fullmatch(r"bleu_(\d)", name):
    return f"BLEU-{bleu[1]}"
  return _ANY_TASK.get(name, name)
