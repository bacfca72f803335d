#!/usr/bin/env bash
# Installs the Debian packages that building, the demo, the tests and the benchmarks use, where they are missing.
# Idempotent: with everything there it does nothing, and needs no rights and no network.
#
#   setup.sh          what building, the demo and the tests need
#   setup.sh bench    and dpdk-testpmd, which stands beside the node in `make bench`
set -euo pipefail

# package: a program of it, and what it is used for
wanted=(
    iproute2:ip             # namespaces, links, routes
    ethtool:ethtool         # offloads off: complete frames on every link
    iputils-ping:ping
    traceroute:traceroute
    curl:curl
    nginx-light:nginx
    iperf3:iperf3
    tcpdump:tcpdump         # captures
    tshark:tshark           # dissects them
    make:make
    gcc:cc                  # links the Rust programs
)

missing=()
for entry in "${wanted[@]}"; do
    package=${entry%%:*}
    program=${entry#*:}
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
done
if [ "${1:-}" = bench ] && ! command -v dpdk-testpmd >/dev/null; then
    missing+=(dpdk-dev)
fi

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust 1.95 or newer (https://rustup.rs)" >&2
    exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then
    echo "setup: everything is there"
    exit 0
fi
echo "setup: installing ${missing[*]}"
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: installing needs root: run 'sudo make setup', or install by hand: apt-get install ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends "${missing[@]}"
