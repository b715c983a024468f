"""The small files of a run in a bucket, and who may write them."""

import contextlib

import pytest

from fusar_jax.io.object_store import listing, read, upload
from fusar_jax.training import bucket_workdir
from fusar_jax.training.bucket_workdir import OWNER, opened, push


def test_files_are_uploaded_and_found_again(bucket):
  url = f"{bucket}/runs/a"
  with opened(url) as folder:
    assert set(listing(url)) == {OWNER}
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("config.json", "provenance.json", "tokenizer/t.model"):
      (folder / name).write_text(name)
    (folder / "draft.part").write_text("")
    push(folder)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "tensorboard").mkdir()
    (folder / "tensorboard/events").write_text("")
  assert not folder.exists()
  written = {"config.json", "metrics.jsonl", "provenance.json"}
  written |= {"tokenizer/t.model"}
  assert set(listing(url)) == written | {"tensorboard/events"}

  before = listing(url)
  with opened(url) as folder:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    assert found == written
    (folder / "provenance.json").unlink()
  after = listing(url)
  assert after == {n: before[n] for n in before if n != "provenance.json"}


def test_the_later_process_takes_a_run_over(bucket):
  url = f"{bucket}/runs/a"
  with contextlib.ExitStack() as stack:
    first = stack.enter_context(opened(url))
    first.mkdir(parents=True)
    (first / "config.json").write_text("1")
    push(first)
    with opened(url) as second:
      (second / "config.json").write_text("2")
      push(second)
      (first / "metrics.jsonl").write_text("lost")
      with pytest.raises(BlockingIOError, match="trains there now; this one"):
        push(first)
    upload(f"{url}/{OWNER}", b"{}")
    # At its end, too.
    with pytest.raises(BlockingIOError):
      stack.close()
  assert read(f"{url}/config.json") == b"2"
  assert set(listing(url)) == {"config.json", OWNER}


def test_a_folder_of_something_else_is_left_alone(bucket):
  upload(f"{bucket}/data/manifest.jsonl", b"{}")
  with (
    pytest.raises(FileExistsError, match="gs://bucket/data is not empty and"),
    opened(f"{bucket}/data/"),
  ):
    pass
  assert set(listing(f"{bucket}/data")) == {"manifest.jsonl"}


def test_an_error_names_the_bucket_and_leaves_nothing(bucket):
  url = f"{bucket}/runs/a"
  with (
    pytest.raises(FileNotFoundError, match=r"'gs://bucket/runs/a/none'"),
    opened(url) as folder,
  ):
    (folder / "none").read_text()
  with (
    pytest.raises(ValueError, match="gs://bucket/runs/a is bad"),
    opened(url) as folder,
  ):
    raise ValueError(f"{folder} is bad")
  assert not listing(url)
  assert not bucket_workdir._open
