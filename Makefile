# make setup | demo | dev | test | test-all | lint | coverage | docs | lock | clean          (everything happens in .venv)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= out/demo
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo dev test test-all lint coverage docs lock clean

INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Compiled modules are kept, whatever the environment says: tests start many processes.
PYTEST  = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(PYTEST_ARGS)

# What a user needs.
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[demo]'
	touch $@

# And what a developer needs beside it; at once, as pip takes half a minute to find out that it has nothing to do.
dev: $(VENV)/.dev

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[demo,dev,docs]'
	touch $(VENV)/.ready $(VENV)/.docs $@

# Simulates a small cohort as DICOM, runs the whole pipeline on it, prints where the report is.
demo: setup
	$(BIN)/tandem demo --out $(OUT)

# While one works: all but the tests marked slow. Before a change is merged: all of them.
test: dev
	$(PYTEST) -m "not slow"

test-all: dev
	$(PYTEST)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# How much of the library the tests run.
coverage: dev
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered

# The site of docs/ in out/site; a broken link is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.ready
	$(INSTALL) -e '.[docs]'
	touch $@

# Pins every version again (needs uv).
lock:
	uv pip compile --universal --no-header --no-annotate --python-version 3.11 \
		--all-extras pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) out build dist
