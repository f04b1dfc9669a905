# The two commands of the README: `make demo` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_COUNT ?= 4

.PHONY: setup demo test soak lint types bundle clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/cytosynth synthesize demo --count $(DEMO_COUNT) --gate nucleus
	$(BIN)/cytosynth check demo
	@echo "Look at demo/preview.png; the data card is demo/README.md."

test: $(READY)
	$(BIN)/python -m pytest

# Kills, full disks, hostile files and a thousand images: half an hour or more of one core, single-threaded. Writes
# results/reliability.md. Where atheris does not install for this Python, files are mutated without its guidance.
soak: $(READY)
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/run.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# Put the weights of the run folders under RUNS (see docs/bundled_models.md) into the package: the best where a run
# kept them, else the last.
BUNDLED := src/cytosynth/bundled
bundle:
	mkdir -p $(BUNDLED)
	for name in foundation normal cell detector; do \
	    find $(BUNDLED)/$$name -type f ! -name README.md -delete 2>/dev/null; mkdir -p $(BUNDLED)/$$name; done
	for pair in foundation:foundation/denoiser normal:normal cell:cell detector:detector; do \
	    run=$(RUNS)/$${pair#*:}; kept=$$run/weights; if [ -d $$run/best ]; then kept=$$run/best; fi; \
	    (cd $$kept && find . -type f ! -name README.md ! -name best.json -print0 | xargs -0 cp --parents -t $(CURDIR)/$(BUNDLED)/$${pair%%:*}); done

clean:
	rm -rf demo dist build .pytest_cache .mypy_cache .ruff_cache
