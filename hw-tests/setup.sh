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
if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust 1.95 or newer (https://rustup.rs)" >&2
    exit 1
fi
# apt-get with root's rights, or the command to type.
apt_install() {
    echo "setup: installing $*"
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: installing needs root: run 'sudo make setup', or install by hand: apt-get install $*" >&2
        return 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# dpdk-testpmd is in Debian's dpdk-dev. That needs rdma-core, so udev. A machine without udev (a container) would get the newest
# one, and with it a newer libudev1 and systemd; the udev that goes with the libudev1 in use leaves them alone. A comparison is
# not worth an upgrade of what runs: where apt wants one, testpmd's column of the benchmark stays empty.
install_testpmd() {
    local packages=(dpdk-dev) plan changed
    if ! dpkg-query -W -f '${Status}\n' udev 2>/dev/null | grep -q ' installed$'; then
        packages+=("udev=$(dpkg-query -W -f '${Version}' libudev1)")
    fi
    if ! plan=$(apt-get install --simulate --no-install-recommends "${packages[@]}" 2>&1); then
        echo "setup: SKIPPED dpdk-testpmd: apt cannot install ${packages[*]}: $(grep '^E:' <<<"$plan" | head -1)"
        return
    fi
    changed=$(awk '/^Inst [^ ]+ \[/ || /^Remv/ { print $2 }' <<<"$plan" | sort -u | tr '\n' ' ')
    if [ -n "$changed" ]; then
        echo "setup: SKIPPED dpdk-testpmd: it would also upgrade or remove: $changed"
        echo "setup: if that is fine: apt-get install --no-install-recommends dpdk-dev"
        return
    fi
    apt_install "${packages[@]}" || echo "setup: SKIPPED dpdk-testpmd: it could not be installed"
}

testpmd=false
if [ "${1:-}" = bench ] && ! command -v dpdk-testpmd >/dev/null; then
    testpmd=true
fi
if [ ${#missing[@]} -eq 0 ] && ! $testpmd; then
    echo "setup: everything is there"
    exit 0
fi
if [ "$(id -u)" -eq 0 ]; then
    apt-get update -q
fi
if [ ${#missing[@]} -gt 0 ]; then
    apt_install "${missing[@]}"
fi
if $testpmd; then
    install_testpmd
fi
