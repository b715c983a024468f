"""`convert --push-to-hub`, against a hub on loopback."""

import dataclasses
import json
import shutil
import socket

import pytest
import yaml
from huggingface_hub import constants

from fusar_jax import convert
from fusar_jax.hf import peft
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.folders import TINY_BASE, resolve
from fusar_jax.hf.licence_files import Terms
from fusar_jax.hf.model_card import Publication
from fusar_jax.model.config import LoRAConfig
from tests.hf.conftest import SMALL, random_params
from tests.hf.fake_hub import FakeHub

NAME = "lab/fusar-small"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A base with terms and an adapter of it, and both exported by `convert`."""
  place = tmp_path_factory.mktemp("made")
  plain = dataclasses.replace(SMALL, tlm=None, lora=LoRAConfig())
  export_merged(
    place / "base", plain, random_params(plain), tokenizer=resolve(TINY_BASE)
  )
  (place / "base" / "LICENSE").write_text("Terms of the base.\n")
  (place / "base" / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
  peft.write_adapter(
    place / "lora",
    SMALL,
    random_params(SMALL, seed=1),
    about=Publication(terms=Terms("mit")),
  )
  scores = place / "scores"
  scores.mkdir()
  (scores / "metrics.json").write_text(
    json.dumps(
      {
        "version": "0.1.0/3",
        "n": 40,
        "counting": {
          "accuracy": 0.525,
          "n": 40,
          "ci95": {"accuracy": [0.375, 0.67]},
        },
        "vqa": {
          "accuracy": 0.5,
          "number": 0.25,
          "n": 20,
          "kinds": {"number": 8},
          "ci95": {"accuracy": [0.3, 0.7], "number": [0.05, 0.6]},
        },
      }
    )
  )
  (scores / "baselines.json").write_text(
    json.dumps(
      {
        "manifest": "/home/somebody/data/ships/test.jsonl",
        "comparisons": [
          {"task": "counting", "score": "accuracy", "baseline": b, "value": v,
           "p": p}
          for b, v, p in (("majority", 0.3, 0.001), ("thumbnail", 0.4, 0.04))
        ],
      }
    )
  )  # fmt: skip
  common = ("--from", place / "base", "--adapter", place / "lora", "--scores",
            scores, "--base-name", "lab/base")  # fmt: skip
  assert _run(*common, "--to", place / "merged") == 0
  tokenizer = ("--tokenizer", place / "base", "--adapter-only")
  assert _run(*common, *tokenizer, "--to", place / "adapter") == 0
  return place


@pytest.fixture
def hub(monkeypatch):
  server = FakeHub()
  monkeypatch.setattr(constants, "ENDPOINT", server.url)
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
  monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
  monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
  yield server
  server.shutdown()
  server.server_close()


def _run(*words) -> int:
  return convert.main([str(word) for word in words])


def _push(folder, *words) -> int:
  return _run("--to", folder, "--push-to-hub", NAME, *words)


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_every_byte_arrives_and_nothing_twice(made, hub, kind, capsys):
  folder = made / kind
  assert _push(folder, "--private", "--revision", "v1") == 0
  repo = hub.repos[NAME]
  assert repo["private"] is True
  assert repo["main"] == {}
  here = {path.name: path.read_bytes() for path in folder.iterdir()}
  assert repo["v1"] == here
  assert f"uploaded: {hub.url}/{NAME}/commit/" in capsys.readouterr().out
  sent = len(hub.sent)
  assert sent == sum(name.endswith((".safetensors", ".pt")) for name in here)
  assert _push(folder, "--private", "--revision", "v1") == 0
  assert len(hub.sent) == sent


def test_the_card_is_valid_and_complete(made):
  for kind in ("merged", "adapter"):
    text = (made / kind / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["license"] == "mit"
    assert front["base_model"] == "lab/base"
    assert front["tags"] == [
      "sar",
      "remote-sensing",
      "earth-observation",
      "fusar-gpt",
    ]
    [result] = front["model-index"][0]["results"]  # of 30 rows or more
    assert "| vqa | number | 0.250 | 0.050 - 0.600 | 8 |  |" in body
    assert result["metrics"][0]["value"] == 0.525
    assert result["dataset"]["name"] == "ships/test.jsonl"
    assert "| 0.525 | 0.375 - 0.670 | 40 | thumbnail 0.400 (p 0.040) |" in body
    assert "produced by Google and Google DeepMind" in body
    assert "base model: mit `LICENSE`" in body
    assert "Scores of fewer than 30 rows show little" in body
    assert "somebody" not in text
    assert (made / kind / "LICENSE").read_text() == "Terms of the base.\n"
  assert front["library_name"] == "peft"
  assert front["base_model_relation"] == "adapter"


def test_a_card_invents_nothing(made, tmp_path):
  bare = tmp_path / "bare"
  shutil.copytree(made / "base", bare)
  for name in ("LICENSE", "README.md"):
    (bare / name).unlink()
  assert _run("--from", bare, "--to", tmp_path / "out") == 0
  text = (tmp_path / "out" / "README.md").read_text()
  front = yaml.safe_load(text.split("---\n")[1])
  assert not {"license", "base_model", "model-index"} & set(front)
  assert "fusar-gpt" not in front["tags"]
  assert "licence is not known here" in text
  assert "## Scores" not in text
  assert "no scores are recorded here" in text


def test_a_dry_run_asks_nobody(made, hub, monkeypatch, capsys):
  monkeypatch.delenv("HF_TOKEN")
  assert _push(made / "merged", "--dry-run") == 0
  out = capsys.readouterr().out
  size = (made / "merged" / "model.safetensors").stat().st_size
  assert f"{size:,}  model.safetensors" in out
  assert "nothing was uploaded" in out
  assert not hub.calls


def test_what_broke_off_is_not_sent_again(made, hub, capsys):
  hub.reject = {"/commit/": 403}
  assert _push(made / "merged", "--private") == 1
  message = capsys.readouterr().err
  assert "may not write to lab/fusar-small (403)" in message
  # Without --private the second command might create a public repository.
  again = f"--to {made / 'merged'} --push-to-hub {NAME} --private`"
  assert again in message
  sent = list(hub.sent)
  assert sent
  hub.reject = {}
  assert _push(made / "merged", "--private") == 0
  assert hub.sent == sent


@pytest.mark.parametrize(
  ("status", "part"),
  [
    (401, "does not accept the access token (401)"),
    (403, "may not write"),
    (404, "no user or organisation lab"),
    (400, "the hub answered 400"),
    (418, "the hub answered 418"),
  ],
)
def test_rejections_say_what_to_do(made, hub, capsys, status, part):
  hub.reject = {"/api/": status}
  assert _push(made / "merged") == 1
  assert part in capsys.readouterr().err
  assert not hub.sent


def test_no_connection(made, hub, monkeypatch, capsys):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  address = f"http://127.0.0.1:{port}"
  monkeypatch.setattr(constants, "ENDPOINT", address)
  assert _push(made / "merged") == 1
  assert "broke off" in capsys.readouterr().err


def test_no_token(made, hub, monkeypatch, tmp_path, capsys):
  monkeypatch.delenv("HF_TOKEN")
  missing = str(tmp_path / "token")
  monkeypatch.setattr(constants, "HF_TOKEN_PATH", missing)
  assert _push(made / "merged") == 1
  assert "no access token" in capsys.readouterr().err
  assert not hub.calls


def test_a_public_repository_is_not_taken_for_private(made, hub, capsys):
  hub.repos[NAME] = {"private": False, "main": {}}
  assert _push(made / "merged", "--private") == 1
  assert "exists and is public" in capsys.readouterr().err
  assert hub.repos[NAME]["main"] == {}
  assert not hub.sent


def test_files_of_another_model_are_not_mixed_with_ours(made, hub, capsys):
  kept = {"assets.png": b"picture", "figures/data.json": b"{}"}
  theirs = kept | {"adapter_config.json": b"{}", "pytorch_model.bin": b""}
  hub.repos[NAME] = {"private": False, "main": dict(theirs)}
  assert _push(made / "merged") == 1
  message = capsys.readouterr().err
  assert "adapter_config.json, pytorch_model.bin. Delete them" in message
  assert not hub.sent
  assert hub.repos[NAME]["main"] == theirs
  hub.repos[NAME]["main"] = dict(kept)
  assert _push(made / "merged") == 0
  assert hub.repos[NAME]["main"].items() > kept.items()


def _edit(name, change):
  def spoil(folder):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))

  return spoil


def _in_config(value):
  def change(data):
    return json.dumps(json.loads(data) | {"base_model_name_or_path": value})

  return lambda data: change(data).encode()


@pytest.mark.parametrize(
  ("kind", "spoil", "part"),
  [
    (
      "adapter",
      _edit("adapter_config.json", _in_config("/data/models/qwen")),
      "adapter_config.json: base_model_name_or_path: /data/models/qwen",
    ),
    (
      "adapter",
      _edit("adapter_config.json", _in_config("file:///home/ann/qwen")),
      "adapter_config.json: base_model_name_or_path: file:///home/ann/qwen",
    ),
    (
      "merged",
      _edit("README.md", lambda d: d + b"\n/home/ann/runs\n"),
      "README.md: /home/ann",
    ),
    (
      "merged",
      _edit("README.md", lambda d: d + b"\nhf_" + b"a1" * 17 + b"\n"),
      "README.md: an access token",
    ),
    (
      "merged",
      lambda folder: (folder / "tokenizer.json").unlink(),
      "incomplete, tokenizer.json missing",
    ),
    (
      "merged",
      _edit("model.safetensors", lambda d: d[:-5]),
      "model.safetensors",
    ),
    (
      "merged",
      _edit("model.safetensors", lambda d: d[:-4] + b"\x00\x00\xc0\x7f"),
      "NaN or infinity",
    ),
    ("adapter", _edit("vec64_film.pt", lambda d: d[:-40]), "vec64_film.pt"),
    (
      "merged",
      lambda folder: (folder / "more").mkdir(),
      "a link or folder",
    ),
  ],
)
def test_bad_folders_stay_here(made, hub, tmp_path, capsys, kind, spoil, part):
  folder = tmp_path / "out"
  shutil.copytree(made / kind, folder)
  spoil(folder)
  assert _push(folder) == 1
  assert part in capsys.readouterr().err
  assert not hub.calls


@pytest.mark.parametrize(
  ("words", "code", "part"),
  [
    (["--push-to-hub", "small", "--to", "x"], 1, "expected OWNER/NAME"),
    (["--push-to-hub", NAME, "--to", "x"], 1, "x not found"),
    (["--push-to-hub", NAME], 1, "--to is missing"),
    (["--to", "x", "--private"], 2, "give one of --from"),
    (
      ["--push-to-hub", NAME, "--to", "x", "--scores", "s", "--no-tlm"],
      2,
      "--scores, --no-tlm: without --from nothing is written",
    ),
    (["--from", "x", "--to", "y", "--dry-run"], 2, "belong to --push-to-hub"),
  ],
)
def test_command_lines(words, code, part, capsys):
  try:
    got = _run(*words)
  except SystemExit as stop:
    got = stop.code
  assert got == code
  assert part in capsys.readouterr().err
