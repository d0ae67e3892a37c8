PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: setup setup-dev demo ui base test unit test-slow lint format clean

# What running needs, with the build of torch that fits the machine (tools/install_torch.py).
setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt pyproject.toml tools/install_torch.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PYTHON) tools/install_torch.py --python $(BIN)/python
	@echo "Installing the other libraries (0.6 GB); this takes a few minutes ... / 正在安装其余的库（0.6 GB），要等几分钟……"
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

# What linting, type checks and tests need in addition.
setup-dev: $(VENV)/.ready-dev

$(VENV)/.ready-dev: $(VENV)/.ready requirements-dev.txt requirements-ui.txt requirements-scale.txt
	$(PIP) -r requirements-dev.txt
	touch $@

# The whole job, end to end, on the embedded base model and beats of a recorded TR-808.
demo: setup
	$(BIN)/python demo.py

# The web page on this machine, with the embedded base model: http://127.0.0.1:7860/
ui: $(VENV)/.ready-ui
	$(BIN)/musicgen-lora ui

$(VENV)/.ready-ui: $(VENV)/.ready requirements-ui.txt
	@echo "Installing what the page needs ... / 正在安装网页界面所需的库……"
	$(PIP) -r requirements-ui.txt
	touch $@

# The embedded base model from scratch: many hours. The steps are targets of pretraining/Makefile.
base: setup-dev
	$(MAKE) -f pretraining/Makefile base

# Lint and type checks run alongside the tests, which leave the cores idle at times.
test: setup-dev
	$(MAKE) --no-print-directory --jobs=2 lint unit

# One process per core; a file's tests stay together and share what its fixtures have trained. Bytecode
# is kept even if the environment says otherwise: tests start many processes.
unit: setup-dev
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder

test-slow: setup-dev
	$(BIN)/python -m pytest -m slow

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf demo build .pytest_cache .ruff_cache
