"""Run setup: where the tokenizer of a run comes from."""

import json

from fusar_jax.training.run_config import resolve
from fusar_jax.training.setup import setup_run


def test_a_tokenizer_is_trained_on_the_manifests_that_the_config_names(
  make_config, manifest, tmp_path
):
  rows = [json.loads(line) for line in manifest.open(encoding="utf-8")]
  for row in rows:
    row["question"] = "How many hovercraft are moored here?"
  others = manifest.parent / "hovercraft.jsonl"
  others.write_text("".join(json.dumps(row) + "\n" for row in rows))
  lengths = {}
  for name, tokenizer in {"own": "", "named": str(others)}.items():
    config = make_config("stage0_tiny", manifest, tokenizer=tokenizer)
    run = setup_run(resolve(config), tmp_path / name)
    lengths[name] = len(run.tokenizer.encode(rows[0]["question"]))
    assert [row.question for row in run.train] != [rows[0]["question"]]
  assert lengths["named"] == 1 < lengths["own"]
