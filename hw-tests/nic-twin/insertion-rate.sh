#!/usr/bin/env bash
# Prints how many rules a second DPDK's own dpdk-test-flow-perf inserts into the NIC twin and takes out again, synchronously.
#
#   insertion-rate.sh [RULES [PROFILE]]     (as root; builds the twin in release)
set -euo pipefail
cd "$(dirname "$0")/../.."

rules=${1:-100000}
profile=${2:-twin}
batch=$((rules < 100000 ? rules : 100000))
if [ "$(id -u)" -ne 0 ]; then
    echo "insertion-rate: DPDK needs root" >&2
    exit 1
fi
cargo build --quiet --release -p nic-twin
# EAL takes no driver from below a folder that everybody may write to.
# With the number of this process in its name `hw-tests sweep` finds it when this process was killed.
folder=$(mktemp -d "/run/sluicegate-$$-0-XXXXXX")
trap 'rm -rf "$folder"' EXIT
cp target/release/libnic_twin.so "$folder"

# The tool knows port 0 alone: the twin makes the port below itself, over a loopback of its own.
log=$folder/log
if ! RUNTIME_DIRECTORY=$folder unshare --net sh -c 'ip link set lo mtu 1500 up && exec "$@"' - \
    dpdk-test-flow-perf -d "$folder/libnic_twin.so" --no-huge -m 512 --no-pci --no-telemetry --no-shconf -l 0-1 \
    --vdev="net_twin0,iface=lo,profile=$profile" -- \
    --portmask=0x1 --ingress --ether --ipv4 --queue \
    --rules-count="$rules" --rules-batch="$batch" --deletion-rate >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
grep -E '(insertion|deletion) rate ->' "$log" | grep -E 'Port 0 :: Core'
