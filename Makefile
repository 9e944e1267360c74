# lasps: every target works from a fresh clone. Overrides are given as VARIABLE=value, see `make help`.
.DEFAULT_GOAL := help
.PHONY: help screenshots seeds setup data data-if-empty checkpoints-if-missing replicate freeze refit check-data train train-phase2 validate compare predict daily promote rollback score ledger-verify walk-forward ui services services-stop sync tune notebooks test lint bench verify tables torture clean
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

DATA_DIR ?= data/processed
OUTPUT_DIR ?= checkpoints
TRIALS ?= 100

# Values reach the scripts as they were given: quotes, backticks and $ in them mean nothing to make or the shell. These
# take a variable's NAME, and read it with $(value), which expands nothing. ARGS alone is shell words.
quote = '$(subst ','\'',$(1))'
quoted = $(call quote,$(value $(1)))
# A variable that is not given leaves the script's own default alone.
flag = $(if $(value $(2)),$(1) $(call quoted,$(2)))
# Several words, each taken literally.
each = $(foreach item,$(value $(1)),$(call quote,$(item)))
# A file in OUTPUT_DIR, and CHECKPOINT or else such a file.
output = $(call quote,$(value OUTPUT_DIR)/$(1).pt)
checkpoint = $(if $(value CHECKPOINT),$(call quoted,CHECKPOINT),$(call output,$(1)))
# What is exported is expanded first: these are passed on (to a make below this one) as they are.
unexport BATCH_SIZE BENCH CHECKPOINT DATA_DIR DATE DEEP DEVICE EFFECT END EPOCHS EVERY FORCE HOLDOUT HTML JSON LISTING \
  LIVE LR MIN_SAMPLES MODEL MODELS NPROC OUT OUTPUT_DIR PORT PRESET PROTOCOL REASON RECIPE REPAIRS RESULTS RESUME SEED \
  SEEDS SOURCE SPLIT START STORAGE STUDY TRIALS WAIVE WORKERS
DATA = --data-dir $(call quoted,DATA_DIR)
OUTPUT = --output-dir $(call quoted,OUTPUT_DIR)
COMMON = $(DATA) $(call flag,--device,DEVICE) $(call flag,--batch-size,BATCH_SIZE) $(call flag,--json,JSON)
TRAIN = $(COMMON) $(OUTPUT) $(call flag,--seed,SEED) $(call flag,--phase2-holdout,HOLDOUT) $(if $(value RESUME),--resume)

help: ## list the targets
	@echo "lasps: make TARGET [VARIABLE=value ...]"; echo
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  %-13s %s\n' "$$name" "$$text"; done
	@echo; echo "  DATA_DIR=data/processed OUTPUT_DIR=checkpoints DEVICE=cuda|cpu CHECKPOINT=FILE EPOCHS=10 LR=5e-4 SEED=7 HOLDOUT=0.2 RESUME=1 TRIALS=100 JSON=FILE"

setup: $(STAMP) ## make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %s: run make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

data: $(STAMP) ## build the dataset: synthetic, or SOURCE=FILE LISTING=FILE PROTOCOL=krx-2020s, or SOURCE=krx START=2015-01-01; ARGS="--pad-codes ..."
ifeq ($(value SOURCE),krx)
	$(PY) experiments/download_krx.py $(call flag,--start,START) $(call flag,--end,END) $(ARGS)
else
	$(PY) experiments/build_dataset.py $(DATA) $(call flag,--source,SOURCE) $(call flag,--listing,LISTING) $(call flag,--protocol,PROTOCOL) $(call flag,--preset,PRESET) $(call flag,--effect,EFFECT) $(call flag,--seed,SEED) $(if $(value FORCE),--force) $(ARGS)
endif

data-if-empty: $(STAMP)
	@if [ ! -f $(call quoted,DATA_DIR)/dataset.json ]; then \
	  $(PY) experiments/build_dataset.py --if-missing $(DATA) $(call flag,--preset,PRESET) $(call flag,--effect,EFFECT); fi

check-data: $(STAMP) ## the integrity report, in the terminal and as HTML: SOURCE=FILE LISTING=FILE; DEEP=1 reads every byte
	$(PY) experiments/check_data.py $(if $(value SOURCE),$(call flag,--source,SOURCE) $(call flag,--listing,LISTING),$(DATA) $(if $(value DEEP),--deep)) $(if $(value WAIVE),--waive $(call each,WAIVE)) $(call flag,--repairs,REPAIRS) $(ARGS)

train: data-if-empty ## train Phases 1, 3 and 2, validate and compare them; NPROC=2 processes train Phases 1 and 3 together
	$(if $(NPROC),$(VENV)/bin/torchrun --standalone --nproc-per-node=$(call quoted,NPROC),$(PY)) experiments/train.py $(TRAIN)
	$(PY) experiments/summarize.py $(COMMON) $(OUTPUT)

checkpoints-if-missing: data-if-empty
	@if [ -z $(call quote,$(value CHECKPOINT)$(value MODELS)) ] && [ ! -f $(call output,phase2_best) ]; then $(MAKE) train; fi

train-phase2: data-if-empty ## train Phase 2 from CHECKPOINT (default: OUTPUT_DIR/phase3_final.pt, trained first if missing); EPOCHS LR RANK PENALTY STUDY STORAGE
	@if [ -z $(call quoted,CHECKPOINT) ] && [ ! -f $(call output,phase3_final) ]; then \
	  $(PY) experiments/train.py $(COMMON) $(OUTPUT) $(call flag,--seed,SEED) $(call flag,--phase2-holdout,HOLDOUT) --phase 1 && \
	  $(PY) experiments/train.py $(COMMON) $(OUTPUT) $(call flag,--seed,SEED) $(call flag,--phase2-holdout,HOLDOUT) --phase 3; fi
	$(PY) experiments/train_phase2.py --checkpoint $(call checkpoint,phase3_final) $(TRAIN) $(call flag,--epochs,EPOCHS) $(call flag,--lr,LR) $(call flag,--min-samples,MIN_SAMPLES) $(call flag,--rank,RANK) $(call flag,--penalty,PENALTY) $(call flag,--study,STUDY) $(call flag,--storage,STORAGE)

validate: checkpoints-if-missing ## validate CHECKPOINT (default: phase2_best) on SPLIT (default: val)
	$(PY) experiments/validate_model.py --checkpoint $(call checkpoint,phase2_best) $(COMMON) $(call flag,--split,SPLIT)

compare: checkpoints-if-missing ## test whether phase2_best is better than phase3_final; MODELS="A B [C ...]": checkpoints, runs or prediction files; FULL=1 CONTROLS=1
	@set --; if [ -z $(call quote,$(value MODELS)) ] && [ -f $(call output,common_change) ]; then set -- $(call output,common_change); fi; \
	$(PY) experiments/compare.py $(if $(value MODELS),$(call each,MODELS),$(call output,phase1_best) $(call output,phase3_final) "$$@" $(call output,phase2_best)) $(DATA) --baselines $(if $(CONTROLS),--controls) $(if $(FULL),--full) --html $(if $(value HTML),$(call quoted,HTML),reports/comparison.html) $(call flag,--json,JSON) $(call flag,--device,DEVICE)

screenshots: $(STAMP) ## take docs/comparison_page.png, the page's first screen, with the system's Chromium; HTML=reports/comparison.html
	$(PY) experiments/screenshots.py $(call flag,--page,HTML)

predict: checkpoints-if-missing ## forecast the last day: CHECKPOINT SOURCE=FILE LISTING=FILE DATE=latest OUT=FILE
	$(PY) experiments/predict.py --checkpoint $(call checkpoint,phase2_best) $(DATA) $(call flag,--source,SOURCE) $(call flag,--listing,LISTING) $(call flag,--date,DATE) $(call flag,--out,OUT) $(call flag,--device,DEVICE)

daily: $(STAMP) ## one evening: refit if due, forecast the days that the ledger lacks, score: RECIPE or CHECKPOINT, SOURCE LISTING LIVE
	$(PY) experiments/daily.py $(call flag,--recipe,RECIPE) $(if $(value RECIPE),$(call flag,--checkpoint,CHECKPOINT),--checkpoint $(call checkpoint,phase2_best)) $(DATA) $(call flag,--source,SOURCE) $(call flag,--listing,LISTING) $(call flag,--start,START) $(call flag,--live-dir,LIVE) $(call flag,--device,DEVICE) $(ARGS)

promote: $(STAMP) ## make another model of the live folder champion: MODEL=2016-03-02 REASON="..." LIVE=live
	$(PY) experiments/promote.py $(call quoted,MODEL) $(call flag,--reason,REASON) $(call flag,--live-dir,LIVE)

rollback: $(STAMP) ## back to the model that the champion replaced: REASON="..." LIVE=live
	$(PY) experiments/promote.py --rollback $(call flag,--reason,REASON) $(call flag,--live-dir,LIVE)

score: $(STAMP) ## the ledger held to account, beside prior, volatility bins and parts: SOURCE LIVE=live HTML=FILE
	$(PY) experiments/score.py $(DATA) $(call flag,--source,SOURCE) $(call flag,--live-dir,LIVE) $(call flag,--html,HTML) $(ARGS)

ledger-verify: $(STAMP) ## check the chain of the ledger's days; LIVE=live
	$(PY) experiments/ledger_verify.py $(call flag,--live-dir,LIVE) $(ARGS)

walk-forward: $(STAMP) ## what a recipe would have earned, refitted over history: RECIPE SOURCE LISTING PROTOCOL EVERY=60 RESULTS
	$(PY) experiments/walk_forward.py --recipe $(call quoted,RECIPE) --source $(call quoted,SOURCE) --listing $(call quoted,LISTING) $(call flag,--protocol,PROTOCOL) $(call flag,--every,EVERY) $(call flag,--results,RESULTS) $(call flag,--device,DEVICE) $(call flag,--workers,WORKERS) $(ARGS)

# HOST counts only where it is given to make: some shells have a variable of that name.
ui: $(STAMP) ## show the runs in MLflow, on 127.0.0.1; PORT=5000 HOST=127.0.0.1
	$(PY) experiments/ui.py $(call flag,--port,PORT) $(if $(filter command,$(origin HOST)),$(call flag,--host,HOST))

services: $(STAMP) ## start PostgreSQL and an MLflow server on it for a team, on 127.0.0.1; ARGS="--dir services --port 5433"
	@$(PY) experiments/services.py start $(ARGS)

services-stop: $(STAMP) ## stop what make services started
	@$(PY) experiments/services.py stop $(ARGS)

sync: $(STAMP) ## upload runs recorded while the tracking server was down; TO=URI LIST=1
	$(PY) experiments/sync.py $(call flag,--to,TO) $(if $(LIST),--list)

tune: checkpoints-if-missing ## tune Phase 2 on CHECKPOINT with Optuna: TRIALS=100 STUDY=phase2 STORAGE=URL WORKERS=1
	$(PY) experiments/tune_phase2.py --checkpoint $(call checkpoint,phase3_final) $(DATA) --trials $(call quoted,TRIALS) $(call flag,--study,STUDY) $(call flag,--storage,STORAGE) $(call flag,--workers,WORKERS) $(call flag,--device,DEVICE)

notebooks: checkpoints-if-missing ## run the notebooks, into reports/
	$(PY) experiments/run_notebooks.py $(call flag,--study,STUDY) $(call flag,--storage,STORAGE)

test: lint ## run lint and the tests
	$(PY) -m pytest -n 2 --dist loadfile

lint: $(STAMP) ## check formatting, ruff and mypy
	$(PY) -m ruff format --check --quiet .
	$(PY) -m ruff check .
	$(PY) -m mypy

replicate: $(STAMP) ## repeat the default experiment on several synthetic markets: SEEDS="7 8 9" EFFECT=sector|none
	$(PY) experiments/replicate.py $(if $(value SEEDS),--seeds $(call each,SEEDS)) $(call flag,--effect,EFFECT) $(call flag,--device,DEVICE) $(call flag,--workers,WORKERS) $(call flag,--json,JSON)

seeds: data-if-empty ## train on DATA_DIR with several seeds and print the command that compares them: SEEDS="7 8 9" LR BATCH_SIZE
	$(PY) experiments/seeds.py $(COMMON) $(OUTPUT) $(if $(value SEEDS),--seeds $(call each,SEEDS)) $(call flag,--lr,LR) $(call flag,--workers,WORKERS) $(ARGS)

freeze: $(STAMP) ## freeze what val decided for the seeds in OUTPUT_DIR, and for LightGBM, into RECIPE=recipe.json
	$(PY) experiments/freeze.py --seeds-dir $(call quoted,OUTPUT_DIR) $(DATA) $(call flag,--out,RECIPE)

refit: $(STAMP) ## train from RECIPE=recipe.json on train and val of DATA_DIR, without a look at a score; forecast test
	$(PY) experiments/refit.py $(DATA) $(OUTPUT) $(call flag,--recipe,RECIPE) $(call flag,--device,DEVICE)

bench: $(STAMP) ## run every benchmark against its reference; BENCH=charts for one
	$(PY) experiments/benchmark.py $(if $(value BENCH),$(call quoted,BENCH),all) $(call flag,--json,JSON)

verify: $(STAMP) ## self-test of the statistics: power, false alarms, coverage, leaks (minutes)
	$(PY) experiments/verify.py $(call flag,--workers,WORKERS)

tables: $(STAMP) ## build the tables of README.md and docs/ from experiments/results/
	$(PY) experiments/tables.py

torture: $(STAMP) ## test kills, full disks and a dying server; writes docs/reliability.md (tens of minutes); WORKERS=2 ARGS="--kills 8"
	$(PY) experiments/torture.py $(call flag,--workers,WORKERS) $(ARGS)

clean: ## remove caches; never data, checkpoints, runs or .venv
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find lasps experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
