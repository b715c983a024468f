"""Runs the commands of docs/official.md on a tiny model in published layout.

Paths are those of the page, inside a temporary folder; sizes are reduced.
"""

import argparse
import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from fusar_jax import convert, predict, train
from fusar_jax.hf import image_text_file, peft, tlm_file
from fusar_jax.hf.load import load_base
from fusar_jax.model.config import VISION_PROJECTIONS, LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.tasks import detection
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.recipes import get_config

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "official.md").read_text(encoding="utf-8")
BASE = "Qwen2.5-VL-7B-Instruct"
SIZE, ROWS = 56, 8
NO_AEF = ("qwen", "stage1", "predictions")
OFFICIAL = {
  "id",
  "coordinate_size",
  "question",
  "gt",
  "prediction_text",
  "detections",
  "parse_error",
}
# What is too large here, or would take minutes.
SHRUNK = {
  "train": [
    "--config.steps=2",
    "--config.batch_size=8",
    f"--config.model.image_size=({SIZE}, {SIZE})",
  ],
  "predict": ["--max-new-tokens=8", "--batch-size=8"],
  "convert": [],
}


def commands() -> list[list[str]]:
  blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
  text = "\n".join(blocks).replace("\\\n", " ")
  found = (shlex.split(line, comments=True) for line in text.splitlines())
  return [words for words in found if words]


def _run(words: list[str]) -> None:
  assert words[:2] == ["python", "-m"]
  module = words[2].removeprefix("fusar_jax.")
  arguments = [word.replace("504", str(SIZE)) for word in words[3:]]
  arguments += SHRUNK[module]
  if module == "train":
    small = [re.sub(r"(configs/\w+\.py)$", _as_small, w) for w in arguments]
    args = train.parser().parse_args(small)
    # Not train.main, which starts JAX's distributed service.
    train_and_evaluate(args.config, args.workdir)
    return
  command = {"predict": predict, "convert": convert}[module]
  assert command.main(arguments) == 0, shlex.join(words)


def _as_small(found: re.Match) -> str:
  return f"{found[1]}:model=init,recipe=tiny"


@pytest.fixture(scope="module")
def walked(tmp_path_factory, tiny_model, make_hf_folder, manifest):
  """The folder in which all commands of the page have run, in order."""
  folder = tmp_path_factory.mktemp("official")
  _write_data(folder / "data", manifest)
  _write_models(folder, tiny_model, make_hf_folder)
  (folder / "configs").symlink_to(ROOT / "configs")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    for words in commands():
      _run(words)
  return folder


def _write_data(folder: Path, manifest: Path) -> None:
  """Manifests as the official ones are: boxes in the question's JSON."""
  shutil.copytree(manifest.parent, folder)
  rows = []
  for i in range(ROWS):
    box = {"bbox_2d": [-3, 4 + i, 30, 59], "label": "plane"}
    rows.append(
      {
        "id": f"detection_{i}",
        "image": f"{i}.png",
        "aef": f"{i}.npz",
        "coordinate_size": SIZE,
        "question": detection.question("plane"),
        "answer": json.dumps([box]),
      }
    )
  without = [{k: v for k, v in row.items() if k != "aef"} for row in rows]
  captions = [
    row | {"question": "Describe the image.", "answer": f"Scene {i}."}
    for i, row in enumerate(rows)
  ]
  for name, content in (
    ("detection", rows),
    ("detection_no_aef", without),
    ("captions", captions),
  ):
    text = "".join(json.dumps(row) + "\n" for row in content)
    (folder / f"{name}.jsonl").write_text(text)


def _write_models(folder: Path, tiny_model, make_hf_folder) -> None:
  """A base that records no image size, and released adapters of it."""
  texts = (folder / "data" / "detection.jsonl").read_text().splitlines()
  texts += (folder / "data" / "captions.jsonl").read_text().splitlines()
  decoder = dataclasses.replace(tiny_model.decoder, vocab=400)
  plain = dataclasses.replace(
    tiny_model, decoder=decoder, tlm=None, image_size=None
  )
  make_hf_folder(plain, texts).rename(folder / BASE)
  init = jax.jit(init_params, static_argnums=0)
  stage1 = dataclasses.replace(
    plain,
    tlm=tiny_model.tlm,
    lora=LoRAConfig(8, 32.0, 0.05, vision=VISION_PROJECTIONS),
    image_size=(SIZE, SIZE),
  )
  for i, name in enumerate(("stage1", "stage2/detection"), start=1):
    params = init(stage1, jax.random.key(i))
    # As trained: B is not zero.
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    peft.write_adapter(folder / "FUSAR-GPT" / name, stage1, params)


@pytest.mark.slow
def test_predictions_are_official_rows(walked):
  outputs = ("predictions", *(f"no_aef/{n}" for n in NO_AEF))
  for name in outputs:
    path = walked / "outputs" / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.open()]
    assert len(rows) == ROWS
    for row in rows:
      assert set(row) >= OFFICIAL
      assert row["coordinate_size"] == SIZE
      assert '"bbox_2d"' in row["gt"]
  assert (walked / "outputs" / "pictures").is_dir()


def _lora_moved(before: Path, after: Path) -> None:
  old, new = (load_file(folder / peft.WEIGHTS) for folder in (before, after))
  assert old.keys() == new.keys()
  assert any(".visual." in name for name in new)
  for name, leaf in new.items():
    assert 0 < np.abs(leaf - old[name]).max() < 0.01, name


@pytest.mark.slow
def test_stage_2_continues_the_released_lora_and_keeps_its_tlm(walked):
  first, second = walked / "FUSAR-GPT/stage1", walked / "outputs/stage2"
  _lora_moved(first, second)
  config, _ = load_base(walked / BASE)
  tlms = [peft.read_adapter(f, config)[1]["tlm"] for f in (first, second)]
  jax.tree.map(np.testing.assert_array_equal, *tlms)
  settings = json.loads((second / peft.SETTINGS).read_text())
  assert settings["base_model_name_or_path"] == f"Qwen/{BASE}"


@pytest.mark.slow
def test_without_aef_the_lora_alone_is_continued_and_exported(walked):
  folder = walked / "outputs/no_aef/adapter"
  assert not tlm_file.has_tlm(folder)
  assert json.loads((folder / image_text_file.FILE).read_text()) == {
    "image_size": SIZE,
    "use_tlm": False,
  }
  _lora_moved(walked / "FUSAR-GPT/stage1", folder)


@pytest.mark.slow
def test_stage_1_starts_from_the_base(walked):
  checkpoint = json.loads((walked / "runs/stage1/config.json").read_text())
  assert checkpoint["model"]["lora"]["vision"] == []
  assert checkpoint["model"]["tlm"]["sigma"] == 2.0
  assert (walked / "runs/stage1/checkpoints/2").is_dir()


def test_flags_in_the_tables_exist():
  """Second columns name options of predict and convert, and config fields."""
  known = set()
  for parser in (predict.parser(), convert.parser()):
    assert isinstance(parser, argparse.ArgumentParser)
    known |= set(parser._option_string_actions)
  known |= {"--workdir", "--config.data.train"}
  given = set()
  for row in re.findall(r"^\|(.+)\|$", PAGE, re.M):
    cells = re.split(r"(?<!\\)\|", row)
    given |= set(re.findall(r"--[a-z][\w.-]*", cells[1]))
  fields = {flag for flag in given if flag.startswith("--config.")}
  assert len(fields) > 8
  assert given - fields <= known
  config = get_config("stage1", "")
  for flag in fields:
    value = config
    for part in flag.removeprefix("--config.").split("."):
      assert part in value, flag
      value = value[part]
