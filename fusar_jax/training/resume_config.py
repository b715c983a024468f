"""Checks that a resumed output was created with the same settings.

Demos, studies, controls and predictions take minutes to hours and resume after
an interruption. Results of different settings must not mix in one output.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.io.strict_json import read_object
from fusar_jax.training.provenance import write_json


def check_resume_config(
  path: str | os.PathLike, settings: Mapping[str, Any]
) -> None:
  """Writes the settings to a file, or compares them with the existing file.

  Args:
    path: JSON file in the output folder; the folder is created.
    settings: name -> JSON-serialisable value.

  Raises:
    FileExistsError: the file contains other settings; lists each.
  """
  path = Path(path)
  if not path.is_file():
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)
    return
  check_same_settings(path.parent, read_object(path), settings)


def check_same_settings(
  output: Path, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
  """Raises FileExistsError if two sets of settings differ; lists each.

  A setting that is absent equals None: files may predate an option.

  Args:
    output: the folder or file that was begun, for the message.
    before, now: name -> JSON-serialisable value.
  """
  changed = [
    f"{name} {before.get(name)} there, {now.get(name)} now"
    for name in {**before, **now}
    if before.get(name) != now.get(name)
  ]
  if changed:
    raise FileExistsError(
      f"{output} was begun with other settings: {'; '.join(changed)}. Give"
      " another folder, or the same settings to resume."
    )
