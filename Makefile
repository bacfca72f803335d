# Sluicegate. Every target can be run again at any time.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help setup demo test lint bench bench-peers budget clean

help:
	@echo 'make setup   install what is missing for all of these; FOR=demo (test, lint, bench): for that one. Each does so itself, too'
	@echo 'make demo    two tenants between two sites through a regional edge (IPsec), with real hosts; then with a NIC under CE1'
	@echo 'make test    unit, property, differential and end-to-end tests, with a stock kernel in QEMU too; the NIC twin under dpdk-testpmd; with DPDK 22.11 and 24.11'
	@echo 'make lint    format, clippy, documentation, licences and advisories'
	@echo 'make bench   memory-to-memory, offload and kernel I/O benchmarks, with the targets beside them'
	@echo 'make budget  instructions for each packet, against fallback-sw/benches/instructions.txt'
	@echo 'make bench-peers   fetch what bench compares with and setup does not install (Open vSwitch with DPDK)'
	@echo 'make clean   remove what was built, and what interrupted labs have left'

# make setup FOR=demo: what that target uses, and no more
FOR ?= all
setup:
	@hw-tests/setup.sh $(FOR)

demo:
	@hw-tests/setup.sh demo
	@$(CARGO) build --quiet --release --workspace --bins --lib
	@target/release/hw-tests demo

test:
	@hw-tests/setup.sh test
	@.ci/test

lint:
	@hw-tests/setup.sh lint
	@.ci/lint

bench:
	@hw-tests/setup.sh bench
	@$(CARGO) bench -p offload-rules --bench lowering
	@$(CARGO) bench -p fallback-sw
	@$(CARGO) build --quiet --release --workspace --bins --lib
	@$(CARGO) bench -p dpu-fastpath --bench nic
	@target/release/hw-tests bench-io

bench-peers:
	@hw-tests/bench-peers.sh

budget:
	@hw-tests/setup.sh bench
	@hw-tests/budget.sh

clean:
	@if [ -x target/debug/hw-tests ]; then target/debug/hw-tests sweep; fi
	@$(CARGO) clean
