"""The `convert` command: files, output and errors."""

import pytest

from fusar_jax import convert
from fusar_jax.hf import peft
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.folders import RECORD, write_record
from fusar_jax.hf.load import load_base
from fusar_jax.hf.model_card import CARD
from fusar_jax.io.strict_json import read_object
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.lora import merge_lora


@pytest.fixture
def folders(tmp_path, config, plain, rand):
  """A base and an adapter of it."""
  export_merged(tmp_path / "base", plain, rand(plain))
  peft.write_adapter(tmp_path / "adapter", config, rand(config, seed=1))
  return tmp_path


def _run(*words) -> int:
  return convert.main([str(word) for word in words])


def test_merge(folders, config, plain, same, capsys):
  base, adapter, out = (folders / n for n in ("base", "adapter", "out"))
  (base / "tokenizer.json").write_text("{}")
  assert _run("--from", base, "--adapter", adapter, "--to", out) == 0
  assert (out / "tokenizer.json").is_file()
  _, params = load_base(base)
  read_config, leaves = peft.read_adapter(adapter, plain)
  want = merge_lora(
    peft.attach(read_config, params, leaves), read_config.lora.scale
  )
  got_config, got = load_base(out)
  same(got, want)
  assert got_config.tlm == config.tlm
  assert got_config.lora == LoRAConfig()
  assert "trust_remote_code=True the modulated one" in capsys.readouterr().out
  for name in ("modeling_fusar_gpt.py", "processing_fusar_gpt.py"):
    assert (out / name).is_file()


def test_adapter_only(folders, plain, same):
  base, adapter, out = (folders / n for n in ("base", "adapter", "out"))
  assert (
    _run("--from", base, "--adapter", adapter, "--to", out, "--adapter-only")
    == 0
  )
  theirs, ours = (peft.read_adapter(f, plain) for f in (adapter, out))
  assert theirs[0] == ours[0]
  same(theirs[1], ours[1])


def test_the_record_goes_with_the_weights(folders, capsys):
  """Of what was trained last: the adapter, or else the base."""
  base, adapter = folders / "base", folders / "adapter"
  record = {
    "step": 7,
    "base": {"path": "runs/b", "sha256": "ab"},
    "data": {"train": [{"path": "m.jsonl", "dataset": {"license": "CC0"}}]},
    "ancestors": [],
  }
  write_record(base, record | {"step": 3})
  write_record(adapter, record)
  for name, words, step in (
    ("merged", ("--adapter", adapter), 7),
    ("adapter2", ("--adapter", adapter, "--adapter-only"), 7),
    ("base2", (), 3),
  ):
    out = folders / name
    assert _run("--from", base, *words, "--to", out) == 0
    assert read_object(out / RECORD) == record | {"step": step}
    card = (out / CARD).read_text()
    assert f"- step: {step}" in card
    assert "training data: m.jsonl (CC0)" in card
  del record["base"]["sha256"]
  write_record(adapter, record)
  out = folders / "none"
  assert _run("--from", base, "--adapter", adapter, "--to", out) == 1
  assert f"{adapter / RECORD}: a field is missing" in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--from", "base"], "--to is missing"),
    (["--from", "nowhere", "--to", "out"], "expected a folder"),
    (["--from", "adapter", "--to", "out"], "This is an adapter"),
    (["--from", "base", "--to", "adapter"], "not empty"),
    (["--from", "base", "--to", "out", "--adapter-only"], "no LoRA"),
    (["--from", "base", "--to", "out", "--step", "3"], "not a run"),
    (["--from", "base", "--to", "out", "--legacy-sigma", "2"], "--adapter"),
    (["--inspect", "nowhere"], "expected a folder"),
  ],
)
def test_mistakes_end_with_code_1(folders, capsys, words, message):
  paths = [folders / w if w[0] in "abno" else w for w in words]
  assert _run(*paths) == 1
  assert message in capsys.readouterr().err
  assert not (folders / "out").exists()


def test_inspect(folders, capsys):
  assert _run("--inspect", folders / "base") == 0
  out = capsys.readouterr().out
  for part in ("visual + model", "69 tensors, float32", "own head"):
    assert part in out
  assert _run("--inspect", folders / "adapter") == 0
  out = capsys.readouterr().out
  for part in ("peft-prefixed", "rank 2, alpha 8", "sigma 1.5", "28 tensors"):
    assert part in out
