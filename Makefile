# Sluicegate. Every target can be run again at any time.
SHELL := /bin/bash
CARGO ?= cargo

.PHONY: help setup demo test lint bench bench-peers clean

help:
	@echo 'make setup   install the Debian packages that are missing'
	@echo 'make demo    two tenants between two sites through a regional edge (IPsec), with real hosts; then with a NIC under CE1'
	@echo 'make test    unit, property, differential and end-to-end tests, with a stock kernel in QEMU too; the NIC twin under dpdk-testpmd'
	@echo 'make lint    format, clippy, documentation, licences and advisories'
	@echo 'make bench   memory-to-memory, offload and kernel I/O benchmarks, with the targets beside them'
	@echo 'make bench-peers   fetch what bench compares with and setup does not install (Open vSwitch with DPDK)'
	@echo 'make clean   remove what was built, and what interrupted labs have left'

setup:
	@hw-tests/setup.sh

demo: setup
	@$(CARGO) build --quiet --release --workspace --bins --lib
	@target/release/hw-tests demo

test: setup
	@.ci/test

lint:
	@.ci/lint

bench:
	@hw-tests/setup.sh
	@$(CARGO) bench -p offload-rules --bench lowering
	@$(CARGO) bench -p fallback-sw
	@$(CARGO) build --quiet --release --workspace --bins --lib
	@$(CARGO) bench -p dpu-fastpath --bench nic
	@target/release/hw-tests bench-io

bench-peers:
	@hw-tests/bench-peers.sh

clean:
	@if [ -x target/debug/hw-tests ]; then target/debug/hw-tests sweep; fi
	@$(CARGO) clean
