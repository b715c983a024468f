# Each target works on a fresh machine with Python 3.11 to 3.13: it creates .venv,
# installs the tested versions of constraints.txt, and runs.
#
#   make demo     simulate, train both stages, score, export, report
#   make test-slow  kills, pods, demo and study: minutes each
#   make test     tests that do not need torch
#   make parity   comparisons with transformers, peft and the
#                 libraries of the metrics (installs torch)
#   make beam     builds a TFDS dataset with Apache Beam
#   make browser  tests the report and the page of serve in Chromium (must be
#                 installed)
#   make trackers sends metrics to W&B, offline, and to MLflow's local store
#   make harness  runs a task of lmms-eval from its YAML to its score
#   make plan     compiles train steps for TPUs without TPU hardware
#   make plan-all also those of 7B and 72B, which take minutes
#   make launch   parses the commands of launch/ with the parsers of their tools
#                 and resolves each extra for Python 3.11 to 3.13
#   make test-newest  core tests with Python 3.13 and the newest versions
#   make notebooks  runs examples/ and compares with the stored outputs
#   make lint     ruff and the minimum versions of the package
#   make base     retrains the tiny base that is shipped with the package
#   make types    pyright in basic mode
#   make docs     builds the documentation as a site (links checked)
#   make reference  recomputes the reference values of tests/reference
#   make gpu      on a CUDA machine (pip install 'jax[cuda13]', torch with CUDA):
#                 equality with a CPU, then speed of 3B and 7B beside transformers
#   make scale    load, train, predict, export with random weights of 3B, or of
#                 PRESET, beside transformers (24 GB of memory, 16 GB of disk)
#   make fuzz MINUTES=10  gives damaged inputs to every reader
#   make mutants  plants faults and runs the tests that should catch them

VENV ?= .venv
# The first supported Python on the PATH.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
  $(shell $(p) -c "import sys; \
    (3, 11) <= sys.version_info < (3, 14) and print('$(p)')" 2>/dev/null)))
BIN := $(VENV)/bin
# Test processes: XLA compilation, which takes longest, uses one core.
JOBS ?= 2
INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(INSTALL) -c constraints.txt
# A Python 3.13, also one of pyenv that is not on the PATH.
PYTHON_NEWEST ?= $(firstword $(foreach p,python3.13 \
  $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python),\
  $(shell $(p) -c "print('$(p)')" 2>/dev/null)))
# This exact version selects the CPU build.
TORCH := torch==2.13.0
BASEDPYRIGHT := basedpyright==1.40.2

.PHONY: environments demo test test-slow test-newest parity beam browser \
  trackers harness plan plan-all launch lint notebooks types base docs \
  reference mutants fuzz scale gpu
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/python -m fusar_jax.demo --out runs/demo

PYTEST := -m pytest -n $(JOBS) --dist loadfile --durations=10
test: $(VENV)/installed
	$(BIN)/python $(PYTEST) -m "not slow" --ignore=tests/parity

test-slow: $(VENV)/installed
	$(BIN)/python $(PYTEST) -m slow --ignore=tests/parity --ignore=tests/planning

# All environments but .venv, for CI.
environments: $(addprefix $(VENV)-,$(addsuffix /installed,docs types plan launch beam \
  harness $(if $(PYTHON_NEWEST),newest)))

# Tests that depend most on JAX and Flax versions.
test-newest: $(VENV)-newest/installed
	$(VENV)-newest/bin/python $(PYTEST) -m "not slow" tests/model tests/hf \
	  tests/inference/test_assistant.py tests/inference/test_generation.py \
	  tests/training/test_step.py tests/training/test_checkpoint.py \
	  tests/training/test_sharding.py

parity: $(VENV)/installed-parity
	FUSAR_REQUIRE_PARITY=1 JAX_DISABLE_MOST_OPTIMIZATIONS=0 \
	  XLA_FLAGS="--xla_force_host_platform_device_count=8 \
	  --xla_cpu_collective_call_terminate_timeout_seconds=600" \
	  $(BIN)/python $(PYTEST) tests/parity tests/reference

# On the CPU, as the stored outputs. What tpu.ipynb runs, `plan` and `launch` test.
notebooks: $(VENV)/installed-notebooks
	JAX_PLATFORMS=cpu $(BIN)/python examples/check.py examples/quickstart.ipynb \
	  examples/your_scene.ipynb

beam: $(VENV)-beam/installed
	FUSAR_REQUIRE_BEAM=1 $(VENV)-beam/bin/python -m pytest tests/data/test_tfds.py

browser: $(VENV)/installed-browser
	FUSAR_REQUIRE_BROWSER=1 $(BIN)/python -m pytest \
	  tests/report/test_in_browser.py tests/serving/test_page_in_browser.py

trackers: $(VENV)/installed-trackers
	FUSAR_REQUIRE_TRACKERS=1 $(BIN)/python -m pytest tests/training/test_services.py

harness: $(VENV)-harness/installed
	FUSAR_REQUIRE_HARNESS=1 $(VENV)-harness/bin/python -m pytest tests/harness

plan: $(VENV)-plan/installed
	FUSAR_REQUIRE_LIBTPU=1 $(VENV)-plan/bin/python -m pytest -m "not slow" \
	  tests/planning tests/test_plan.py

plan-all: $(VENV)-plan/installed
	FUSAR_REQUIRE_LIBTPU=1 $(VENV)-plan/bin/python -m pytest \
	  tests/planning tests/test_plan.py

launch: $(VENV)/installed $(VENV)-launch/installed
	FUSAR_LAUNCH_TOOLS=$(abspath $(VENV)-launch/bin) $(BIN)/python -m pytest \
	  -n $(JOBS) -rs tests/launch/test_parsers.py tests/launch/test_install.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed $(VENV)-types/installed
	$(VENV)-types/bin/basedpyright --level error --pythonpath $(BIN)/python < /dev/null

docs: $(VENV)-docs/installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --quiet --strict

# From scratch on simulated scenes: no anchors, no third-party data. The phases
# of configs/stage0_tiny.py; a finished one is not repeated.
BASE := runs/base
STAGE0 = $(BIN)/python -m fusar_jax.train \
  --config configs/stage0_tiny.py:phase=$(1) --workdir $(BASE)/$(1) \
  --config.data.train=$(BASE)/data/$(2).jsonl
base: $(VENV)/installed
	test -e $(BASE)/data || $(BIN)/python -m fusar_jax.simulate \
	  --out $(BASE)/data --scenes 20000 --seed 1000 --pretraining-tasks
	$(call STAGE0,see,pretraining_see) \
	  --config.tokenizer=$(BASE)/data/pretraining_tasks.jsonl
	$(call STAGE0,one,pretraining_one) --config.init=$(BASE)/see
	$(call STAGE0,two,pretraining_two) --config.init=$(BASE)/one
	$(call STAGE0,all,pretraining_tasks) --config.init=$(BASE)/two
	$(BIN)/python -m fusar_jax.convert --from $(BASE)/all \
	  --to fusar_jax/assets/tiny_base --dtype bfloat16 --overwrite

reference: $(VENV)/installed-parity
	$(BIN)/python tests/reference/make.py

# 15 minutes on one core; resumes after an interruption.
mutants: $(VENV)/installed
	$(BIN)/python tests/mutants/run.py

PRESET := qwen2_5_vl_3b
scale: $(VENV)/installed-parity
	$(BIN)/python tests/scale/run.py --preset $(PRESET) --out runs/scale/$(PRESET)

gpu: $(VENV)/installed
	$(BIN)/python tests/gpu/run.py

MINUTES := 10
fuzz: $(VENV)/installed
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

# Stamps: an installation is repeated only if its dependencies change.
$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and\
	 none is on the PATH; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml constraints.txt
	$(PIP) -e '.[test]'
	@touch $@

$(VENV)/installed-parity: $(VENV)/installed
	$(PIP) $(TORCH)
	$(PIP) -e '.[parity]'
	@touch $@

$(VENV)/installed-notebooks: $(VENV)/installed
	$(PIP) -e '.[notebooks]'
	@touch $@

$(VENV)/installed-browser: $(VENV)/installed
	$(PIP) -e '.[browser]'
	@touch $@

$(VENV)/installed-trackers: $(VENV)/installed
	$(PIP) -e '.[wandb,mlflow]'
	@touch $@

# Separate environment: with libtpu installed JAX looks for a TPU in all tests.
$(VENV)-plan/installed: $(VENV)/made pyproject.toml constraints.txt \
    constraints-plan.txt
	$(VENV)/bin/python -m venv $(VENV)-plan
	$(VENV)-plan/bin/python $(INSTALL) -c constraints-plan.txt -e '.[test,plan]'
	@touch $@

# Separate environment without constraints.txt: Beam needs an older protobuf.
$(VENV)-beam/installed: $(VENV)/made pyproject.toml
	$(VENV)/bin/python -m venv $(VENV)-beam
	$(VENV)-beam/bin/python $(INSTALL) -e '.[test,tfds-build]'
	@touch $@

# Separate environment without constraints.txt: lmms-eval needs an older filelock.
# What it imports for a task; its own pins are those of 100 models.
$(VENV)-harness/installed: $(VENV)/made pyproject.toml
	$(VENV)/bin/python -m venv $(VENV)-harness
	$(VENV)-harness/bin/python $(INSTALL) $(TORCH) -e '.[test]' 'filelock<4' \
	  accelerate aiohttp datasets evaluate loguru openai portalocker pytz \
	  sacrebleu tenacity transformers
	$(VENV)-harness/bin/python $(INSTALL) --no-deps lmms-eval==0.7.3
	@touch $@

$(VENV)-newest/installed: pyproject.toml constraints-3.13.txt
	@test -n "$(PYTHON_NEWEST)" || { echo "Python 3.13 is needed, and none is\
	 here; name one: make PYTHON_NEWEST=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON_NEWEST) -m venv $(VENV)-newest
	$(VENV)-newest/bin/python $(INSTALL) -c constraints-3.13.txt -e '.[test]'
	@touch $@

# Separate environment: these tools pin unrelated versions. Slurm's tools are
# unpacked, not installed, if Debian packages are available.
$(VENV)-launch/installed: $(VENV)/made constraints-launch.txt
	$(VENV)/bin/python -m venv $(VENV)-launch
	$(VENV)-launch/bin/python $(INSTALL) -c constraints-launch.txt uv xpk
	cd $(VENV)-launch && { apt-get download slurm-client \
	  slurm-wlm-basic-plugins && for deb in *.deb; do dpkg -x $$deb slurm; \
	  done && cd bin && ln -sf ../slurm/usr/bin/* .; } > /dev/null 2>&1 || \
	  echo "make launch: without Slurm's commands, which apt-get has not got"
	@touch $@

# Separate environment: it brings a Node of 200 MB.
$(VENV)-types/installed: $(VENV)/made
	$(VENV)/bin/python -m venv $(VENV)-types
	$(VENV)-types/bin/python $(INSTALL) $(BASEDPYRIGHT)
	@touch $@

# Separate environment: docstrings are parsed as text, without imports.
$(VENV)-docs/installed: $(VENV)/made constraints-docs.txt
	$(VENV)/bin/python -m venv $(VENV)-docs
	$(VENV)-docs/bin/python $(INSTALL) -c constraints-docs.txt \
	  mkdocs-material 'mkdocstrings[python]'
	@touch $@
