# Every target works on a machine with nothing but Python >= 3.11 and make:
# what it needs is installed into .venv first, and again when the pins change.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PINS := pyproject.toml constraints.txt
JAVASCRIPT := tests/javascript
WEB := web

.DELETE_ON_ERROR:
.PHONY: help demo demo-text demo-inside test test-all javascript page docs bench sweep lint types wheel clean

help:
	@echo "make demo      reprogram a real image classifier, end to end"
	@echo "make demo-text prompt a real text encoder, end to end"
	@echo "make demo-inside look into a real image classifier: Grad-CAM, probes, comparisons"
	@echo "make test      lint, type check, tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make javascript  Node's packages and a browser, for the tests that run outside of Python"
	@echo "make page      build the graph page, graphprog/ir/drawing/page.html, from web/graph_page"
	@echo "make docs      build the site into site/, with executed notebooks"
	@echo "make bench     speed and memory beside PEFT and plain loops, into docs/benchmarks.md"
	@echo "make sweep     all families of the model libraries, into docs/zoo.md"
	@echo "make lint      ruff, check and format; the layers of imports"
	@echo "make types     strict type check"
	@echo "make wheel     build dist/*.whl and dist/*.tar.gz"
	@echo "make clean     remove what the targets above wrote, except $(VENV)"

demo: $(VENV)/.installed-demo
	$(RUN) examples/01_reprogram_classifier/run.py

demo-text: $(VENV)/.installed-demo
	$(RUN) examples/02_prompt_a_text_encoder/run.py

demo-inside: $(VENV)/.installed-demo
	$(RUN) examples/09_look_inside_an_image_classifier/run.py

test: lint types javascript
	$(RUN) -m pytest -n 2 --dist loadgroup

test-all: lint types javascript
	$(RUN) -m pytest -n 2 --dist loadgroup -m "slow or not slow"

javascript: $(JAVASCRIPT)/node_modules/.package-lock.json $(WEB)/node_modules/.package-lock.json

page: $(WEB)/node_modules/.package-lock.json
	PATH="$(abspath $(VENV)/bin):$$PATH" node $(WEB)/build.mjs

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

bench: $(VENV)/.installed-test
	$(RUN) -m benchmarks

sweep: $(VENV)/.installed-test
	$(RUN) -m sweep

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) tools/layers.py

types: $(VENV)/.installed-test
	$(RUN) tools/typecheck.py

# setuptools reuses build/, where files deleted from the tree would live on in the wheel.
wheel: $(VENV)/.installed-test
	rm -rf build dist
	$(RUN) -m build --no-isolation

clean:
	rm -rf build dist site .cache *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf examples/*/outputs
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.installed-%: $(PINS) | $(RUN)
	$(RUN) -m pip install -c constraints.txt -e ".[$*]"
	@touch $@

# No package may run a program of its own while it is installed: some would download.
%/node_modules/.package-lock.json: %/package-lock.json | $(VENV)/.installed-test
	PATH="$(abspath $(VENV)/bin):$$PATH" npm ci --ignore-scripts --no-audit --no-fund --prefix $*
	@touch $@

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "graphprog needs Python 3.11 or newer; '$(PYTHON)' is" \
	        "$$(command -v $(PYTHON) >/dev/null && $(PYTHON) --version 2>&1 || echo absent)." >&2; \
	    echo "Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "Try: install the venv module of '$(PYTHON)' (on Debian: apt install python3-venv)." >&2; \
	    exit 1; }
