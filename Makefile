# The two commands of the README: `make demo` and `make test`. Both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_COUNT ?= 4

.PHONY: setup demo test test-slow coverage soak lint types docs results bundle clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/cytosynth synthesize demo --count $(DEMO_COUNT) --gate nucleus --fast
	$(BIN)/cytosynth check demo
	@echo "Look at demo/preview.png; the data card is demo/README.md."

# A process for each core, four at most, each with one thread; files stay whole, as their tests share models.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

# What `make test` leaves out: promises with kills and mutated files, notebooks, scripts, pages in a browser, a Ray cluster.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

# Lines and branches that both of the above run, in all and by room; forked and spawned processes are not counted.
coverage: $(READY)
	$(BIN)/python -m pytest --cov=cytosynth --cov-branch --cov-report=json:build/coverage.json --cov-report=
	$(BIN)/python tests/coverage_by_room.py build/coverage.json

# Kills, full disks, hostile files, refused memory, a thousand images: 40 minutes of two cores. Writes
# results/reliability.md. Where atheris does not install for this Python, files are mutated without its guidance.
soak: $(READY)
	-$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak/run.py --shards 2

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

# The documentation site, into site/; a warning (a broken link, a page in no menu) is an error.
docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Put the weights of the run folders under RUNS (see docs/bundled_models.md) into the package: the best where a run
# kept them, else the last; the foundation with the refined decoder where there is one; few-step weights where there are
# runs distill-normal and distill-cell (old ones are removed: they fit the models they were distilled from). With
# DATA=FOLDER their seen_images.txt is written too: which image files they were trained and chosen on (SEEN).
BUNDLED := src/cytosynth/bundled
DECODER := $(RUNS)/foundation/decoder/weights
SEEN := --data cric:train --data cric:val --data lbc_x40:train --data lbc_x40:val
bundle: $(READY)
	@for run in foundation/denoiser normal cell detector classifier; do \
	    [ -d $(RUNS)/$$run/weights ] || [ -d $(RUNS)/$$run/best ] || { \
	    echo "$(RUNS)/$$run: no trained weights there; RUNS=FOLDER says where all five runs are" >&2; exit 1; }; done
	mkdir -p $(BUNDLED)
	for name in foundation normal normal_liquid cell detector classifier fast; do \
	    find $(BUNDLED)/$$name -type f ! -name README.md -delete 2>/dev/null; mkdir -p $(BUNDLED)/$$name; done
	set -e; for pair in foundation:foundation/denoiser normal:normal normal_liquid:normal_liquid cell:cell detector:detector \
	    classifier:classifier fast/normal:distill-normal fast/cell:distill-cell; do \
	    run=$(RUNS)/$${pair#*:}; case $$pair in fast/*|normal_liquid:*) [ -d $$run ] || continue;; esac; \
	    mkdir -p $(BUNDLED)/$${pair%%:*}; kept=$$run/weights; if [ -d $$run/best ]; then kept=$$run/best; fi; \
	    to=$$(realpath $(BUNDLED)/$${pair%%:*}); cd $$kept; \
	    find . -type f ! -name README.md ! -name best.json -print0 | xargs -0 cp --parents -t $$to; cd - > /dev/null; done
	if [ -d $(DECODER) ]; then $(BIN)/python -c 'import sys; from pathlib import Path; import torch; \
	    from diffusers import AutoencoderKL; from cytosynth.foundation.load import part; from cytosynth.foundation.save import save_part; \
	    save_part(part(AutoencoderKL, Path(sys.argv[1])), Path(sys.argv[2]), torch.float16)' \
	    $(DECODER) $(BUNDLED)/foundation/vae; fi
	if [ -n "$(DATA)" ]; then $(BIN)/cytosynth evaluate seen $(SEEN) --data-root $(DATA) --output $(BUNDLED); fi

# All tables from the results that are kept; the files that are committed come out the same.
results: $(READY)
	$(BIN)/cytosynth experiment tables results

clean:
	rm -rf demo dist build site .pytest_cache .mypy_cache .ruff_cache
