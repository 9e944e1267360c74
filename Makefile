# lasps: every target works from a fresh clone. Overrides are given as VARIABLE=value, see `make help`.
.DEFAULT_GOAL := help
.PHONY: help seeds setup data data-if-empty checkpoints-if-missing replicate check-data train train-phase2 validate compare predict ui sync tune notebooks test lint bench verify clean
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

DATA_DIR ?= data/processed
OUTPUT_DIR ?= checkpoints
TRIALS ?= 100

# A variable that is not given leaves the script's own default alone.
flag = $(if $(2),$(1) "$(2)")
COMMON = --data-dir "$(DATA_DIR)" $(call flag,--device,$(DEVICE)) $(call flag,--batch-size,$(BATCH_SIZE)) $(call flag,--json,$(JSON))
TRAIN = $(COMMON) --output-dir "$(OUTPUT_DIR)" $(call flag,--seed,$(SEED)) $(call flag,--phase2-holdout,$(HOLDOUT)) $(if $(RESUME),--resume)

help: ## list the targets
	@echo "lasps: make TARGET [VARIABLE=value ...]"; echo
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  %-13s %s\n' "$$name" "$$text"; done
	@echo; echo "  DATA_DIR=$(DATA_DIR) OUTPUT_DIR=$(OUTPUT_DIR) DEVICE=cuda|cpu CHECKPOINT=FILE EPOCHS=10 LR=5e-4 SEED=7 HOLDOUT=0.2 RESUME=1 TRIALS=$(TRIALS) JSON=FILE"

setup: $(STAMP) ## make .venv from requirements.lock

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is %s: say make PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

data: $(STAMP) ## build the dataset: synthetic, or SOURCE=FILE LISTING=FILE PROTOCOL=krx-2020s, or SOURCE=krx START=2015-01-01; ARGS="--pad-codes ..."
ifeq ($(SOURCE),krx)
	$(PY) experiments/download_krx.py $(call flag,--start,$(START)) $(call flag,--end,$(END)) $(ARGS)
else
	$(PY) experiments/build_dataset.py --data-dir "$(DATA_DIR)" $(call flag,--source,$(SOURCE)) $(call flag,--listing,$(LISTING)) $(call flag,--protocol,$(PROTOCOL)) $(call flag,--preset,$(PRESET)) $(call flag,--effect,$(EFFECT)) $(call flag,--seed,$(SEED)) $(if $(FORCE),--force) $(ARGS)
endif

data-if-empty: $(STAMP)
	@if [ -z "$$(ls -A "$(DATA_DIR)" 2>/dev/null)" ]; then \
	  $(PY) experiments/build_dataset.py --data-dir "$(DATA_DIR)" $(call flag,--preset,$(PRESET)) $(call flag,--effect,$(EFFECT)); fi

check-data: $(STAMP) ## the integrity report alone, on the terminal and as HTML: SOURCE=FILE LISTING=FILE
	$(PY) experiments/check_data.py $(if $(SOURCE),--source "$(SOURCE)" $(call flag,--listing,$(LISTING)),--data-dir "$(DATA_DIR)") $(if $(WAIVE),--waive $(WAIVE)) $(call flag,--repairs,$(REPAIRS)) $(ARGS)

train: data-if-empty ## Phases 1, 3 and 2, validated, compared: the main job
	$(PY) experiments/train.py $(TRAIN)
	$(PY) experiments/summarize.py $(COMMON) --output-dir "$(OUTPUT_DIR)"

checkpoints-if-missing: data-if-empty
	@if [ -z "$(CHECKPOINT)$(MODELS)" ] && [ ! -f "$(OUTPUT_DIR)/phase2_best.pt" ]; then $(MAKE) train; fi

train-phase2: data-if-empty ## Phase 2 on CHECKPOINT (default: OUTPUT_DIR/phase3_final.pt, trained first where missing); EPOCHS LR STUDY STORAGE
	@if [ -z "$(CHECKPOINT)" ] && [ ! -f "$(OUTPUT_DIR)/phase3_final.pt" ]; then \
	  $(PY) experiments/train.py $(COMMON) --output-dir "$(OUTPUT_DIR)" $(call flag,--seed,$(SEED)) $(call flag,--phase2-holdout,$(HOLDOUT)) --phase 1 && \
	  $(PY) experiments/train.py $(COMMON) --output-dir "$(OUTPUT_DIR)" $(call flag,--seed,$(SEED)) $(call flag,--phase2-holdout,$(HOLDOUT)) --phase 3; fi
	$(PY) experiments/train_phase2.py --checkpoint "$(or $(CHECKPOINT),$(OUTPUT_DIR)/phase3_final.pt)" $(TRAIN) $(call flag,--epochs,$(EPOCHS)) $(call flag,--lr,$(LR)) $(call flag,--min-samples,$(MIN_SAMPLES)) $(call flag,--study,$(STUDY)) $(call flag,--storage,$(STORAGE))

validate: checkpoints-if-missing ## the validation block of CHECKPOINT (default: phase2_best) on SPLIT (default: val)
	$(PY) experiments/validate_model.py --checkpoint "$(or $(CHECKPOINT),$(OUTPUT_DIR)/phase2_best.pt)" $(COMMON) $(call flag,--split,$(SPLIT))

compare: checkpoints-if-missing ## is phase2_best better than phase3_final? MODELS="A B [C ...]": checkpoints, runs or prediction files
	$(PY) experiments/compare.py $(or $(MODELS),"$(OUTPUT_DIR)/phase1_best.pt" "$(OUTPUT_DIR)/phase3_final.pt" "$(OUTPUT_DIR)/phase2_best.pt") --data-dir "$(DATA_DIR)" --baselines --html "$(or $(HTML),reports/comparison.html)" $(call flag,--json,$(JSON)) $(call flag,--device,$(DEVICE))

predict: checkpoints-if-missing ## forecasts of the last day: CHECKPOINT SOURCE=FILE LISTING=FILE DATE=latest OUT=FILE
	$(PY) experiments/predict.py --checkpoint "$(or $(CHECKPOINT),$(OUTPUT_DIR)/phase2_best.pt)" --data-dir "$(DATA_DIR)" $(call flag,--source,$(SOURCE)) $(call flag,--listing,$(LISTING)) $(call flag,--date,$(DATE)) $(call flag,--out,$(OUT)) $(call flag,--device,$(DEVICE))

ui: $(STAMP) ## MLflow in the browser, on 127.0.0.1; PORT=5000
	$(PY) experiments/ui.py $(call flag,--port,$(PORT))

sync: $(STAMP) ## send to the tracking server what could not be sent while training
	$(PY) experiments/sync.py

tune: checkpoints-if-missing ## an Optuna study of Phase 2 on CHECKPOINT: TRIALS=100 STUDY=phase2 STORAGE=URL WORKERS=1
	$(PY) experiments/tune_phase2.py --checkpoint "$(or $(CHECKPOINT),$(OUTPUT_DIR)/phase3_final.pt)" --data-dir "$(DATA_DIR)" --trials $(TRIALS) $(call flag,--study,$(STUDY)) $(call flag,--storage,$(STORAGE)) $(call flag,--workers,$(WORKERS)) $(call flag,--device,$(DEVICE))

notebooks: checkpoints-if-missing ## execute the notebooks into reports/
	$(PY) experiments/run_notebooks.py $(call flag,--study,$(STUDY)) $(call flag,--storage,$(STORAGE))

test: lint ## lint, types and tests
	$(PY) -m pytest -n 2 --dist loadfile

lint: $(STAMP) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

replicate: $(STAMP) ## the default market again: SEEDS="7 8 9" EFFECT=sector|none
	$(PY) experiments/replicate.py $(if $(SEEDS),--seeds $(SEEDS)) $(call flag,--effect,$(EFFECT)) $(call flag,--device,$(DEVICE)) $(call flag,--json,$(JSON))

seeds: data-if-empty ## SEEDS="7 8 9" on DATA_DIR, each trained in full, and the command that compares them; LR BATCH_SIZE
	$(PY) experiments/seeds.py $(COMMON) --output-dir "$(OUTPUT_DIR)" $(if $(SEEDS),--seeds $(SEEDS)) $(call flag,--lr,$(LR)) $(ARGS)

bench: $(STAMP) ## every benchmark against its reference; BENCH=charts for one
	$(PY) experiments/benchmark.py $(or $(BENCH),all) $(call flag,--json,$(JSON))

verify: $(STAMP) ## known answers: planted effects, false alarms, coverage, leaks (minutes)
	$(PY) experiments/verify.py

clean: ## remove caches; never data, checkpoints, runs or .venv
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find lasps experiments tests -name __pycache__ -type d -prune -exec rm -rf {} +
