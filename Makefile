# Every command that people and CI run. `make demo` and `make test` first install what is missing
# (scripts/install-prerequisites.sh says what, and never more than that).
#
# Virtual machines, network namespaces and mounts need root: the demo runs under sudo where you are not root, and so
# do the test executables, while cargo itself always runs as you.

CARGO ?= cargo
TARGET_DIRECTORY := $(abspath $(or $(CARGO_TARGET_DIR),target))
ifneq ($(shell id -u),0)
AS_ROOT := sudo -E
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(AS_ROOT)
endif

.PHONY: demo test test-newer-qemu lint bench ci

demo:
	scripts/install-prerequisites.sh demo
	$(CARGO) build --release --locked --bin farshore
	$(AS_ROOT) $(TARGET_DIRECTORY)/release/farshore demo

# The scenarios in tests/ are ordinary integration tests that run the built binary.
test: export FARSHORE_BIN := $(TARGET_DIRECTORY)/debug/farshore
test:
	scripts/install-prerequisites.sh test
	$(CARGO) build --locked --bin farshore
	$(CARGO) test --locked --workspace --no-fail-fast
	$(MAKE) --no-print-directory test-newer-qemu

# Captures once more, on the QEMU that scripts/install-qemu-backport.sh unpacked, if it did.
NEWER_QEMU := $(TARGET_DIRECTORY)/qemu-10
test-newer-qemu:
	@if [ -e $(NEWER_QEMU)/complete ]; then \
		echo "Captures on `$(NEWER_QEMU)/bin/qemu-system-x86_64 --version | head -n 1`"; \
		export PATH=$(NEWER_QEMU)/bin:$$PATH FARSHORE_TEST_QEMU_MAJOR=10; \
		[ -z "$(AS_ROOT)" ] || export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(AS_ROOT) env PATH=$$PATH"; \
		$(CARGO) build --locked --package farshore-provider-qemu --examples && \
		$(CARGO) test --locked --package farshore-qmp --package farshore-provider-qemu --test monitor --test capture; \
	else \
		echo "SKIPPED: captures were tested on the installed QEMU alone. For those on QEMU 10 as well:"; \
		echo "    scripts/install-qemu-backport.sh $(NEWER_QEMU)"; \
	fi

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "$(CARGO) deny --locked check"; $(CARGO) deny --locked check; \
	else \
		echo "Dependencies are not checked: cargo-deny is missing (cargo install --locked cargo-deny)."; \
	fi

bench: export FARSHORE_BIN := $(TARGET_DIRECTORY)/release/farshore
bench:
	scripts/install-prerequisites.sh bench
	$(CARGO) build --release --locked --bin farshore
	$(CARGO) bench --locked --package farshore-tests --no-fail-fast --bench '*'

.NOTPARALLEL:
ci: lint test demo
