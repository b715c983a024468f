"""Objects of a bucket and their local copies, in an emulated object store."""

import os
import sys

import pytest
from etils import epath

from fusar_jax.io import object_files, object_store, remote_folder
from fusar_jax.io.object_store import delete, fetch_files, fetch_folder, upload


def test_a_copy_follows_its_folder(bucket):
  url = f"{bucket}/data"
  for name in ("a.txt", "below/b.txt", "c.txt"):
    upload(f"{url}/{name}", name.encode())
  upload(f"{bucket}/data2/other.txt", b"")
  folder = fetch_folder(url)
  assert folder == object_store.local_path(url)
  assert object_store.url_of(folder / "a.txt") == f"{url}/a.txt"
  assert object_store.url_of(folder.parents[3]) is None
  assert _content(folder) == {
    "a.txt": b"a.txt",
    "below/b.txt": b"below/b.txt",
    "c.txt": b"c.txt",
  }

  # Equal in size and time: it is not downloaded again.
  before = (folder / "a.txt").stat()
  (folder / "a.txt").write_bytes(b"local")
  os.utime(folder / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
  (folder / "below/left.part").touch()  # Of a killed process.
  upload(f"{url}/below/b.txt", b"new")
  delete(f"{url}/c.txt")
  assert fetch_folder(url) == folder
  assert _content(folder) == {"a.txt": b"local", "below/b.txt": b"new"}


def test_files_that_are_gone_have_no_copy(bucket):
  url = f"{bucket}/data"
  upload(f"{url}/a.txt", b"a")
  fetch_files([f"{url}/a.txt", f"{url}/none.txt"])
  assert _content(object_store.local_path(url)) == {"a.txt": b"a"}
  delete(f"{url}/a.txt")
  fetch_files([f"{url}/a.txt"])
  assert not _content(object_store.local_path(url))


@pytest.mark.parametrize("name", ["../../out", "/out", "a//b", "."])
def test_names_that_leave_the_folder_are_rejected(bucket, monkeypatch, name):
  """The emulator has no such names; they are put into its listing."""
  upload(f"{bucket}/data/a", b"x")
  client = object_store.client()
  listed = client.list_blobs

  def renamed(*arguments, **options):
    for blob in listed(*arguments, **options):
      blob.name = f"data/{name}"
      yield blob

  monkeypatch.setattr(client, "list_blobs", renamed)
  with pytest.raises(ValueError, match="gs://bucket/data: an object is called"):
    fetch_folder(f"{bucket}/data")


def test_an_object_is_replaced_only_at_its_generation(bucket):
  url = f"{bucket}/owner"
  first = upload(url, b"1", 0)
  second = upload(url, b"2", first)
  with pytest.raises(FileExistsError, match="gs://bucket/owner: another proc"):
    upload(url, b"3", first)
  delete(url, first)
  assert object_store.read(url) == b"2"
  delete(url, second)
  with pytest.raises(FileNotFoundError, match="gs://bucket/owner: not found"):
    object_store.read(url)


def test_errors_name_the_url_and_the_fix(bucket, monkeypatch):
  with pytest.raises(FileNotFoundError, match="does the bucket gs://none exis"):
    object_store.listing("gs://none/data")
  with pytest.raises(FileNotFoundError, match="gs://bucket/x: no such folder"):
    fetch_folder(f"{bucket}/x")
  for url in ("gs://", "gs://bucket/../other"):
    with pytest.raises(ValueError, match="expected gs://BUCKET/PATH"):
      object_store.split(url)

  from google.api_core import exceptions
  from google.auth.exceptions import DefaultCredentialsError

  for error, kind, message in (
    (exceptions.Forbidden("no"), PermissionError, "roles/storage.objectUser"),
    (DefaultCredentialsError("no"), PermissionError, "default login"),
    (exceptions.ServiceUnavailable("busy"), OSError, "gs://b/a: Serv.*busy"),
  ):
    with pytest.raises(kind, match=message), object_store.errors("gs://b/a"):
      raise error

  for module in ("google.cloud", "google.api_core"):
    with monkeypatch.context() as patch:
      patch.setitem(sys.modules, module, None)
      with pytest.raises(ImportError, match=r"gs://bucket/a needs google.*gcs"):
        object_store.listing(f"{bucket}/a")


def test_of_a_run_the_newest_complete_checkpoint_is_copied(bucket):
  url = f"{bucket}/runs/a"
  names = ["provenance.json", "tokenizer/t.model", "tensorboard/events"]
  for step in (2, 10, 12):
    names.append(f"checkpoints/{step}/host/metadata")
    if step != 12:
      names.append(f"checkpoints/{step}/{remote_folder.COMMITTED}")
  for name in names:
    upload(f"{url}/{name}", name.encode())
  kept = {"provenance.json", "tokenizer/t.model"}
  for step, found in ((None, 10), (2, 2)):
    checkpoint = f"checkpoints/{found}/"
    assert set(_content(remote_folder.fetch_model(url, step))) == kept | {
      f"{checkpoint}host/metadata",
      f"{checkpoint}{remote_folder.COMMITTED}",
    }


def test_orbax_sees_files_and_folders(bucket):
  object_files.register()
  root = epath.Path(f"{bucket}/run")
  assert not root.exists()
  (root / "empty").mkdir(parents=True)
  (root / "a").write_text("1")
  (root / "below/b").write_text("22")
  assert sorted(path.name for path in root.iterdir()) == ["a", "below", "empty"]
  assert (root / "empty").is_dir()
  assert not list((root / "empty").iterdir())
  assert (root / "a").is_file()
  assert (root / "below/b").read_text() == "22"
  assert (root / "below/b").stat().length == 2
  assert [str(p) for p in root.glob("b*/b")] == [f"{bucket}/run/below/b"]
  with pytest.raises(FileNotFoundError):
    (root / "none").read_text()
  (root / "a").unlink()
  assert not (root / "a").exists()
  (root / "below").rmtree()
  assert [path.name for path in root.iterdir()] == ["empty"]


def _content(folder) -> dict[str, bytes]:
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }
