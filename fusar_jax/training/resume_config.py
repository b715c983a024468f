"""Checks that a resumed output folder was created with the same settings.

Demos, studies and controls take minutes to hours and resume after an
interruption. Results of different settings must not mix in one folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusar_jax.training.provenance import read_json, write_json


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
  before = read_json(path)
  changed = [
    f"{name} {before.get(name)} there, {settings.get(name)} now"
    for name in {**before, **settings}
    if before.get(name) != settings.get(name)
  ]
  if changed:
    raise FileExistsError(
      f"{path.parent} was begun with other settings: {'; '.join(changed)}."
      " Give another folder, or the same settings to go on."
    )
