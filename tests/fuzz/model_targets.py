"""Model, adapter and tokenizer folders, runs, and files of unfinished work."""

import dataclasses
import functools
import json
import tempfile
from pathlib import Path

import numpy as np
from target import Target, as_json, as_lines, into, lazy, written
from text_targets import TEXTS

_SETTINGS = {"seed": 0, "model": "a"}


@functools.cache
def _config():
  """A model of 20,000 parameters."""
  from fusar_jax.model import config

  vision = config.VisionConfig(
    depth=2, hidden_size=8, heads=2, intermediate_size=8, out_width=16,
    full_attention=(1,),
  )  # fmt: skip
  decoder = config.DecoderConfig(
    layers=1, hidden_size=16, heads=2, kv_heads=1, head_dim=8,
    intermediate_size=16, vocab=64, mrope_section=(2, 1, 1),
  )  # fmt: skip
  return config.FusarConfig(
    vision=vision,
    decoder=decoder,
    tlm=config.TLMConfig(sigma=1.5),
    lora=config.LoRAConfig(rank=2, alpha=8.0),
    tokens=config.SpecialTokens(60, 61, 62, 58, 57),
    image_size=(56, 56),
  )


def _params(config) -> dict:
  from fusar_jax.hf import mapping, tlm_file
  from fusar_jax.model.paths import unflatten

  shapes = mapping.leaf_shapes(config)
  shapes |= mapping.leaf_shapes(config, adapter=True)
  if config.tlm:
    for row in tlm_file.tensors(config.tlm, config.vision.out_width):
      shapes[row.path] = mapping.transformed_shape(row)
  rng = np.random.default_rng(0)
  return unflatten(
    {
      path: rng.standard_normal(shape).astype(np.float32)
      for path, shape in shapes.items()
    }
  )


def _base():
  from fusar_jax.model.config import LoRAConfig

  return dataclasses.replace(
    _config(), tlm=None, lora=LoRAConfig(rank=0), image_size=None
  )


@functools.cache
def _files(kind: str) -> dict[str, bytes]:
  """Returns the files of a model folder, or of an adapter folder."""
  from fusar_jax.hf.export import export_merged
  from fusar_jax.hf.folders import TINY_BASE, resolve
  from fusar_jax.hf.image_text_file import write_image_text
  from fusar_jax.hf.peft import write_adapter

  with tempfile.TemporaryDirectory() as name:
    folder = Path(name, "made")
    if kind == "adapter":
      write_adapter(folder, _config(), _params(_config()))
    elif kind == "plain adapter":
      config = dataclasses.replace(_config(), tlm=None)
      write_adapter(folder, config, _params(config))
      write_image_text(folder, config)
    else:
      tiny = resolve(TINY_BASE)
      export_merged(folder, _base(), _params(_base()), tokenizer=tiny)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _in_folder(read, kind: str, name: str) -> Target:
  """One file of a folder whose other files are intact."""

  def around(folder: Path) -> None:
    for other, content in _files(kind).items():
      (folder / other).write_bytes(content)

  return Target(
    lambda path: read(path.parent),
    lambda folder: [_files(kind)[name]],
    name,
    around,
  )


def _load(folder: Path) -> None:
  """What every command does with a model folder."""
  from fusar_jax.hf.load import load_base
  from fusar_jax.report.folder_summary import describe

  describe(folder)
  load_base(folder)


def _read_adapter(folder: Path) -> None:
  from fusar_jax.hf.peft import read_adapter, read_lora
  from fusar_jax.report.folder_summary import describe

  read_lora(folder)
  read_adapter(folder, _base())
  describe(folder)


def _index_around(folder: Path) -> None:
  for name, content in _files("model").items():
    name = "a.safetensors" if name == "model.safetensors" else name
    (folder / name).write_bytes(content)


def _index(folder: Path) -> list[bytes]:
  from safetensors.numpy import load

  names = load(_files("model")["model.safetensors"])
  weight_map = dict.fromkeys(names, "a.safetensors")
  return [json.dumps({"metadata": {}, "weight_map": weight_map}).encode()]


def _torch(folder: Path) -> list[bytes]:
  from fusar_jax.hf.torch_file import write_torch

  state = {"0.weight": np.ones((4, 3), np.float32), "0.bias": np.zeros(4)}
  write_torch(folder / "a.pt", {"film_mlp": state})
  return [(folder / "a.pt").read_bytes()]


def _safetensors(folder: Path) -> list[bytes]:
  from safetensors.numpy import save

  return [save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int8)})]


def _read_safetensors(path: Path) -> None:
  from fusar_jax.hf.weights import Weights

  weights = Weights([path])
  for item in weights.found():
    weights.read(item)


def _read_tokenizer(path: Path) -> None:
  """Loads it, and encodes and decodes as a prompt does."""
  from fusar_jax.data.tokenizer import load_tokenizer

  words = load_tokenizer(path)
  words.decode(words.encode(TEXTS[0]))


def _sentencepiece(folder: Path) -> Path:
  from fusar_jax.data.tokenizer import train_sentencepiece

  path = folder / "a.model"
  train_sentencepiece(TEXTS, path, vocab_size=400, numbers=20)
  return path


def _tokenizer_json(folder: Path) -> list[bytes]:
  import tokenizers

  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=200,
    special_tokens=[
      "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>",
      "<|vision_end|>", "<|endoftext|>",
    ],
    show_progress=False,
  )  # fmt: skip
  made.train_from_iterator(TEXTS, trainer)
  return [made.to_str().encode()]


def _export_tokenizer(path: Path, out: Path) -> None:
  from fusar_jax.hf.tokenizer_files import write_tokenizer

  out.mkdir()
  write_tokenizer(out, path.parent)


def _run_files(folder: Path) -> None:
  """A run of random weights without a checkpoint."""
  from fusar_jax.training.provenance import Source, provenance, write_json

  random = Source("random")
  record = provenance(random, random, {"train": []})
  write_json(folder / "provenance.json", record)
  written = {
    "config": {"seed": 0, "dtype": {"frozen": "bfloat16"}},
    "model": dataclasses.asdict(_config()),
  }
  write_json(folder / "config.json", written)


def _record(folder: Path) -> list[bytes]:
  from fusar_jax.training.export_record import export_record

  _run_files(folder)
  data = [{"path": "a", "sha256": "b", "dataset": {"source": "c"}}]
  record = export_record(folder, 3) | {"data": {"train": data}}
  return [json.dumps(record).encode()]


def _read_run(folder: Path) -> None:
  from fusar_jax.report.folder_summary import describe
  from fusar_jax.report.lineage import lineage, records
  from fusar_jax.training.parameters import read_shapes

  describe(folder)
  read_shapes(folder)
  records(lineage(folder))


def _run_target(name: str) -> Target:
  def seeds(folder: Path) -> list[bytes]:
    _run_files(folder)
    return [(folder / name).read_bytes()]

  return Target(lambda path: _read_run(path.parent), seeds, name, _run_files)


def _read_progress(path: Path) -> None:
  from fusar_jax.inference.progress import Progress

  with Progress(path, _SETTINGS) as progress:
    progress.open()
    progress.rows()


def _read_journal(path: Path) -> None:
  from fusar_jax.datasets.prepare.journal import open_journal

  with open_journal(path.parent, _SETTINGS) as journal:
    _ = journal.entries


def _checkpoint(folder: Path) -> None:
  (folder / "step").mkdir(exist_ok=True)
  (folder / "step" / "weights").write_bytes(b"abc")


def _sums(folder: Path) -> list[bytes]:
  from fusar_jax.training import checksums

  _checkpoint(folder)
  checksums.write_checksums(folder / "step")
  return [(folder / "step" / checksums.CHECKSUMS).read_bytes()]


def _check_sums(path: Path) -> None:
  from fusar_jax.training import checksums

  problem = checksums.find_corruption(path.parent)
  if problem:
    raise ValueError(problem)


def _study_plan(folder: Path) -> list[bytes]:
  from fusar_jax.experiments.plan import Plan

  return [json.dumps(dataclasses.asdict(Plan())).encode()]


def _read_plan(path: Path) -> None:
  from fusar_jax.experiments.plan import Plan
  from fusar_jax.training.resume_config import check_resume_config

  check_resume_config(path, dataclasses.asdict(Plan()))


def _points(folder: Path) -> list[bytes]:
  from fusar_jax.simulation.fit import REGIONS

  bands = ",".join(f"A{band:02d}" for band in range(64))
  row = f"{REGIONS[0]}1,2,-9.5," + ",".join(["0.1"] * 64)
  return [f"region,dw_label,S1_VV,{bands}\n{row}\n{row}\n".encode()]


def _read_scores(path: Path) -> None:
  lazy("hf.card_scores", "read_scores")(path.parent)


_METRICS = {
  "version": "0.1.0/3",
  "n": 40,
  "counting": {"accuracy": 0.5, "n": 40, "ci95": {"accuracy": [0.4, 0.6]}},
}
_BASELINES = {
  "manifest": "data/test.jsonl",
  "comparisons": [
    {"task": "counting", "score": "accuracy", "baseline": "majority",
     "value": 0.4, "p": 0.01},
  ],
}  # fmt: skip

TARGETS = {
  "adapter config": _in_folder(
    _read_adapter, "adapter", "adapter_config.json"
  ),
  "adapter weights": _in_folder(
    _read_adapter, "adapter", "adapter_model.safetensors"
  ),
  "base terms": Target(
    lambda path: lazy("hf.licence_files", "read_terms")(path.parent),
    lambda folder: [b"---\nlicense: apache-2.0\ntags: [a]\n---\n# Base\n"],
    "README.md",
  ),
  "card baselines": Target(
    _read_scores, as_json(_BASELINES), "baselines.json",
    lambda folder: (folder / "metrics.json").write_text(json.dumps(_METRICS)),
  ),
  "card scores": Target(
    _read_scores, as_json(_METRICS), "metrics.json"
  ),
  "checksums": Target(_check_sums, _sums, "step/checksums.json", _checkpoint),
  "config": _in_folder(_load, "model", "config.json"),
  "fit points": Target(
    lambda path: lazy("simulation.fit", "read_rows")(path.parent), _points,
    ".csv",
  ),
  "generation config": Target(
    lambda path: lazy("hf.generation_config", "GenerationDefaults.read")(
      path.parent
    ),
    as_json({"temperature": 0.1, "top_k": 50, "eos_token_id": [1, 2]}),
    "generation_config.json",
  ),
  "image size file": _in_folder(
    _read_adapter, "plain adapter", "image_text_config.json"
  ),
  "metrics of a run": Target(
    lambda path: lazy("report.curves", "read_curve")(path.parent),
    as_lines({"step": 1, "loss": 2.5}, {"step": 2, "eval_loss": 2.0}),
    "metrics.jsonl",
  ),
  "model weights": _in_folder(_load, "model", "model.safetensors"),
  "plan of a study": Target(_read_plan, _study_plan, "plan.json"),
  "prepare journal": Target(
    _read_journal,
    as_lines({"settings": _SETTINGS}, {"key": "a/b", "value": [1]}),
    "prepare.partial.jsonl",
  ),
  "preprocessor config": _in_folder(
    _load, "model", "preprocessor_config.json"
  ),
  "record of a model": Target(
    lambda path: lazy("report.folder_summary", "describe_record")(path.parent),
    _record, "fusar_provenance.json",
  ),
  "run config": _run_target("config.json"),
  "run provenance": _run_target("provenance.json"),
  "safetensors": Target(_read_safetensors, _safetensors, ".safetensors"),
  "sentencepiece": Target(_read_tokenizer, written(_sentencepiece), ".model"),
  "times of jobs": Target(
    lazy("experiments.jobs", "_recorded_times"),
    as_lines({"job": "a", "kind": "train", "units": 3, "seconds": 2.5}),
    ".jsonl",
  ),
  "tlm config": _in_folder(_read_adapter, "adapter", "tlm_config.json"),
  "tlm weights": _in_folder(_read_adapter, "adapter", "vec64_film.pt"),
  "tokenizer": Target(_read_tokenizer, _tokenizer_json, ".json"),
  "tokenizer config": Target(
    into("out", _export_tokenizer),
    as_json({"tokenizer_class": "A", "chat_template": "", "pad_token": "a"}),
    "tokenizer_config.json",
    lambda folder: (folder / "tokenizer.json").write_text("{}"),
  ),
  "torch": Target(
    lazy("hf.torch_file", "read_torch"), _torch, ".pt"
  ),
  "unfinished predictions": Target(
    _read_progress,
    as_lines({"settings": _SETTINGS}, {"row": 1, "prediction": {"id": "a"}}),
    ".jsonl.part",
  ),
  "weights index": Target(
    lambda path: _load(path.parent), _index, "model.safetensors.index.json",
    _index_around,
  ),
}  # fmt: skip
