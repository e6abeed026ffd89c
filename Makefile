# Everything a person does with this repository; `make` alone lists it.
#
# Settings: CARGO (the cargo to use), RUSTFLAGS (kept and added to), DESTDIR and INIT for
# `make install`. CARGO_TARGET_DIR and the like work as they do for cargo.

CARGO ?= cargo
DESTDIR ?=
# busybox, systemd, openrc or none: what starts the agent.
INIT ?= busybox
# A binary built elsewhere (scripts/cross-build) to install instead of this checkout's.
BINARY ?=
# Arguments of scripts/demo.
DEMO ?=

# Scenarios wait more than they compute: more threads than cores.
RUST_TEST_THREADS ?= 6

export CARGO RUST_TEST_THREADS

# cargo uses all cores by itself, and takes no part in make's job server.
.NOTPARALLEL:
cargo = env -u MAKEFLAGS -u MFLAGS $(CARGO)

default: help

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r target text; do printf '%-14s%s\n' "$$target" "$$text"; done

build: ## build the release binary, without any path of this machine in it
	@scripts/build-release

demo: ## watch a firmware update travel from a hub to a device image
	@scripts/demo $(DEMO)

test: ## run all tests
	@command -v fwup >/dev/null || echo "*** No fwup on PATH: tests with the real fwup are SKIPPED, the stand-in runs."
	$(cargo) build --workspace --bins
	$(cargo) test --workspace
	@command -v fwup >/dev/null || echo "*** No fwup on PATH: tests with the real fwup were SKIPPED."

check: ## check formatting, lints, tests, documentation and scripts
	$(cargo) fmt --all --check
	$(cargo) clippy --workspace --all-targets -- -D warnings
	@scripts/check-scripts
	RUSTDOCFLAGS="-D warnings" $(cargo) doc --no-deps --package nerveshub-agent
	@$(MAKE) --no-print-directory test
	@scripts/test-init
	@scripts/test-install

size: ## measure the release binary against its budget of 2.0 MiB
	@scripts/size-report

install: ## install binary, start script, settings and examples (DESTDIR=, INIT=, BINARY=)
	@DESTDIR="$(DESTDIR)" INIT="$(INIT)" BINARY="$(BINARY)" scripts/install

clean: ## remove what was built
	$(cargo) clean
	rm -rf dist

.PHONY: default help build demo test check size install clean
