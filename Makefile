# What one types. System packages stand in packaging/debian-*.txt, with what each is for.

CARGO ?= cargo
# Seconds that `make fuzz` gives each target.
FUZZ_SECONDS ?= 60

.PHONY: help demo test lint bench soak fuzz deps deps-run

help:
	@echo 'make demo    two simulated cameras and a gateway in front of them'
	@echo 'make test    all tests'
	@echo 'make lint    format, clippy, documentation, shell scripts, licences'
	@echo 'make bench   the comparisons (takes long); results belong into benches/results/'
	@echo 'make soak    a camera killed a hundred times, ten minutes of viewers coming and going'
	@echo 'make fuzz    each fuzz target for FUZZ_SECONDS ($(FUZZ_SECONDS))'
	@echo 'make deps    only the system packages that the above need'

deps:
	@packaging/deps build run test

deps-run:
	@packaging/deps build run

demo: deps-run
	$(CARGO) build --release --locked
	target/release/fanlight demo

# Goes on after a failure, so that the summary counts everything.
test: deps
	$(CARGO) test --locked --no-fail-fast

lint: deps
	@packaging/lint

bench: deps
	benches/run.sh all

soak: deps
	FANLIGHT_KILLS=100 $(CARGO) test --locked --test it gateway::kills -- --nocapture
	benches/run.sh soak
	$(CARGO) test --locked --test it -- --ignored --nocapture soak_

fuzz: deps
	@packaging/fuzz $(FUZZ_SECONDS)
