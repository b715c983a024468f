"""Builder of the TFDS data set; with Apache Beam, distributed over machines.

One record is one complete triplet: its images, anchors as tensors, and text.
The features "index" and "record" are for `fusar_jax.data.tfds_reading`; all
others are for other readers.

S anchors, E = 64 embedding bands.
"""

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from fusar_jax.data.records import File
from fusar_jax.data.triplets import Triplet, read_manifests, write_text
from fusar_jax.datasets.shards import Entry, survey_files, write_error
from fusar_jax.datasets.source_rows import describe_sources, row_of
from fusar_jax.geo.anchors import BANDS, read_anchors
from fusar_jax.io.atomic_write import new_folder

_DESCRIPTION = """\
Triplets of a SAR image, AlphaEarth vectors at known places of it, and words.
"anchors" holds those of all images of a record one after another, and "counts"
how many belong to each image; positions are (y, x) in [0, 1].
"""


class _Info(tfds.core.DatasetInfo):
  def initialize_from_bucket(self) -> None:
    """Does nothing: TFDS's own leaves an empty folder in /tmp each time."""


class TfdsFusar(tfds.core.GeneratorBasedBuilder):
  """The data set `tfds_fusar`."""

  VERSION = tfds.core.Version("1.0.0")

  def __init__(
    self,
    *,
    manifests: Mapping[str, str] | None = None,
    beam: bool = False,
    **kwargs,
  ):
    """Args other than TFDS's own.

    Args:
      manifests: by split; each one, or several with commas between. Needed to
        build, not to read.
      beam: build in a Beam pipeline.
    """
    self._manifests = dict(manifests or {})
    self._beam = beam
    super().__init__(file_format="array_record", **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    features = tfds.features
    return _Info(
      builder=self,
      description=_DESCRIPTION,
      features=features.FeaturesDict(
        {
          "index": np.int64,
          "record": features.Text(),
          "id": features.Text(),
          "task": features.Text(),
          "question": features.Text(),
          "answer": features.Text(),
          "images": features.Sequence(features.Image(shape=(None, None, 3))),
          "anchors": {
            "features": features.Tensor(shape=(None, BANDS), dtype=np.float32),
            "positions": features.Tensor(shape=(None, 2), dtype=np.float32),
            "counts": features.Tensor(shape=(None,), dtype=np.int32),
          },
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    triplets = {s: read_manifests(p) for s, p in self._manifests.items()}
    # Sources and licences belong to the data set. TFDS renames this folder when
    # it is complete.
    about = {split: describe_sources(rows) for split, rows in triplets.items()}
    text = json.dumps({"splits": about}, indent=1, ensure_ascii=False)
    write_text(Path(self.data_dir) / "dataset.json", text + "\n")
    return {s: self._generate_examples(rows) for s, rows in triplets.items()}

  def _generate_examples(self, triplets: list[Triplet]):
    numbered = list(enumerate(triplets))
    if self._beam:
      import apache_beam

      # Rows travel to the machines; their files are looked at there.
      return apache_beam.Create(numbered) | apache_beam.Map(_record)
    # All bad files are reported before the first record is written.
    return map(
      functools.partial(_record, entries=survey_files(triplets)), numbered
    )


def build(
  manifests: Mapping[str, str],
  out: str,
  *,
  shards: int | None = None,
  beam: Sequence[str] | None = None,
) -> Path:
  """Writes OUT/tfds_fusar/1.0.0 atomically; returns its path.

  Args:
    manifests: by split; each one, or several with commas between.
    out: TFDS's data_dir, which may contain other data sets.
    shards: of each split; default: as many as TFDS sees fit.
    beam: options of Beam's pipeline, such as ["--runner=DirectRunner"]; None:
      build in this process, without Beam.

  Raises:
    FileExistsError: the data set exists already.
    FileNotFoundError, ValueError: a bad manifest, row or file. Beam's runners
      wrap it in another error.
    OSError: a file cannot be written, and nothing remains.
    ImportError: Beam is requested but not installed.
  """
  config = tfds.download.DownloadConfig(num_shards=shards)
  if beam is not None:
    try:
      from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
      raise ImportError(
        f"Apache Beam cannot be imported ({error}); install it with"
        " pip install 'fusar-jax[tfds-build]', or build without."
      ) from None
    config = config.replace(beam_options=PipelineOptions(list(beam)))
  folder = Path(out, TfdsFusar.name, str(TfdsFusar.VERSION))
  with new_folder(folder) as draft:
    builder = TfdsFusar(
      manifests=manifests, beam=beam is not None, data_dir=draft
    )
    try:
      # TFDS prints the name of the draft.
      with contextlib.redirect_stdout(None):
        builder.download_and_prepare(download_config=config)
    except RuntimeError as error:
      if beam is not None:
        raise
      raise write_error(folder, error) from None
    # TFDS adds folders of its own: NAME/VERSION, and one for downloads.
    ours = list(draft.iterdir())
    for file in Path(builder.data_dir).iterdir():
      file.rename(draft / file.name)
    for other in ours:
      shutil.rmtree(other)
  return folder


def _record(
  numbered: tuple[int, Triplet], entries: Mapping[File, Entry] | None = None
) -> tuple[int, dict]:
  """Returns (key, features) of a row; entries: what is known of its files."""
  index, triplet = numbered
  if entries is None:
    entries = survey_files([triplet])
  table = {
    "row": row_of(triplet),
    "images": [dataclasses.asdict(entries[i]) for i in triplet.images],
    "anchors": [a and dataclasses.asdict(entries[a]) for a in triplet.anchors],
  }
  known = [a and read_anchors(a) for a in triplet.anchors]
  present = [anchors for anchors in known if anchors is not None]
  return index, {
    "index": index,
    "record": json.dumps(table, ensure_ascii=False),
    "id": triplet.id,
    "task": triplet.task or "",
    "question": triplet.question,
    # The row in "record" keeps what is absent apart from what is empty.
    "answer": triplet.answer or "",
    "images": [image.read_bytes() for image in triplet.images],
    "anchors": {
      "features": np.concatenate(
        [np.zeros((0, BANDS), np.float32), *(a.features for a in present)]
      ),
      "positions": np.concatenate(
        [np.zeros((0, 2), np.float32), *(a.positions for a in present)]
      ),
      "counts": np.array([0 if a is None else len(a) for a in known], np.int32),
    },
  }
