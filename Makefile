# `make help` lists what there is. Every target sets up what it needs.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
ifdef LOCKED
	$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .
else
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[suite,text,launchers,test]'
endif
	@touch $(READY)

setup: $(READY)  ## a virtual environment with everything the suite needs (LOCKED=1 in a new clone: the exact packages of requirements.lock)

demo: $(READY)  ## full rank against Cuttlefish on embedded digits: minutes on a CPU, offline
	$(PY) -m scripts.demo

test: $(READY)  ## the fast tests, the linters and the type checker
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/pyrefly check --python-interpreter-path $(PY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2

test-slow: $(READY)  ## the tests that take longer
	$(PY) -m pytest -m slow

test-gpu: $(READY)  ## the tests that need a GPU
	$(PY) -m pytest -m gpu tests

DEVICE ?= cuda
gpu-slice: $(READY)  ## MINUTES=8 of a borrowed GPU in order of value: ceilings, tests, step times, runs (docs/gpu.md; DEVICE=cpu: all of it as a toy)
	$(PY) -m scripts.gpu_slice run --device $(DEVICE) --minutes $(if $(MINUTES),$(MINUTES),8)

bench: $(READY)  ## speed as ratios of one run, written to results/bench (run it with nothing beside it)
	$(PY) -m scripts.bench

estimate: $(READY)  ## hours and cost of Tables 2 to 4 by device, from measured steps (DEVICES=1,8 PRICE=H200=3.50,A100=1.80)
	$(PY) -m scripts.estimate $(if $(DEVICES),--devices $(DEVICES)) $(if $(PRICE),--price $(PRICE))

reevaluate: $(READY)  ## every accuracy whose final weights are under runs/, from them alone
	$(PY) -m scripts.reevaluate

SCALE ?= reduced
SEEDS ?= 0
PLAN = --scale $(SCALE) --seeds $(SEEDS) $(if $(filter only,$(COLLATE)),--collate-only) $(if $(DRY),--dry-run) $(if $(MINUTES),--minutes $(MINUTES))
tables: $(READY)  ## runs what is missing of every table at SCALE=reduced SEEDS=0, then collates (COLLATE=only trains nothing, DRY=1 lists; MINUTES=9 takes no run that does not fit)
	$(PY) -m scripts.tables $(PLAN)

table1 table2 table3 table4 table5 overheads: $(READY)
	$(PY) -m scripts.tables $@ $(PLAN)

figure1 figure2 figure3 figure5: $(READY)
	$(PY) -m scripts.tables $@ $(PLAN)
	$(if $(DRY),,$(PY) -m scripts.figures $(@:figure%=%) --scale $(SCALE))

# A dry run lists profiles with COLLATE=only, too; "only" alone is collating in earnest.
PROFILED4 = stacks
PROFILED6 = layers
NETWORKS4 = resnet18 vgg19
NETWORKS6 = resnet50 deit_small_patch16_224
figure4 figure6: $(READY)
	$(if $(filter only,$(COLLATE)$(DRY)),,$(foreach network,$(NETWORKS$(@:figure%=%)),\
		$(PY) -m scripts.profile_layers $(PROFILED$(@:figure%=%)) --model $(network) --scale $(SCALE) --missing $(if $(DRY),--dry-run) &&) true)
	$(if $(DRY),,$(PY) -m scripts.figures $(@:figure%=%) --scale $(SCALE))

EACH = figure1 figure2 figure3 figure4 figure5 figure6
figures: $(READY) $(if $(filter only,$(COLLATE)$(DRY)),,$(EACH))  ## all six, as SVG and PNG, after the runs and profiles they lack (COLLATE=only draws what there is)
	$(if $(DRY),,$(PY) -m scripts.figures)

report: $(READY) $(if $(filter only,$(COLLATE)),,tables figures claims)  ## results/report/index.html, after tables, figures and claims (COLLATE=only: of what there is)
	$(if $(DRY),,$(PY) -m scripts.report)

claims: $(READY)  ## a verdict on every claim of the paper, from results/records and results/bench
	$(PY) -m scripts.claims

docs: $(READY)  ## the pages in docs/ as a site in site/, with the reference from the docstrings
	$(PY) -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.27'
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

readme: $(READY)  ## the measured numbers in README.md and docs/, from the generated files
	$(PY) -m scripts.readme

torture: $(READY)  ## kill little runs at every write and at 1,000 random moments, resume, compare the bits (half an hour; results/torture)
	OMP_NUM_THREADS=1 $(PY) -m tests.torture

clean:  ## remove the environment and caches, not runs or results
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: docs estimate gpu-slice readme reevaluate tables table1 table2 table3 table4 table5 overheads figure1 figure2 figure3 figure4 figure5 figure6 figures report claims help setup demo test test-slow test-gpu bench torture clean
