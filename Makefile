# make setup | demo | dev | test | lint | lock | clean          (everything happens in .venv)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo dev test lint lock clean

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# What a user needs.
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[demo]'
	touch $@

# And what a developer needs beside it.
dev: $(VENV)/.dev

$(VENV)/.dev: $(VENV)/.ready
	$(INSTALL) -e '.[demo,dev]'
	touch $@

# Simulates a small cohort as DICOM, runs the whole pipeline on it, prints where the report is.
demo: setup
	$(BIN)/tandem demo --out $(OUT)

test: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pins every version again (needs uv).
lock:
	uv pip compile --universal --no-header --no-annotate --python-version 3.11 \
		--all-extras pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) out build dist
