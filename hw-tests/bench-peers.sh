#!/usr/bin/env bash
# What `make bench` compares with and `make setup` does not install: Open vSwitch with DPDK. Unpacked below target/peers, as nobody
# wants its daemons running; gone with `make clean`.
set -euo pipefail
cd "$(dirname "$0")/.."

root=target/peers/ovs
if [ -x $root/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk ]; then
    echo "bench-peers: $root is there"
    exit 0
fi
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
(cd "$packages" && apt-get -q -o APT::Sandbox::User=root download openvswitch-common openvswitch-switch openvswitch-switch-dpdk)
mkdir -p $root
for package in "$packages"/*.deb; do
    dpkg-deb --extract "$package" $root
done
missing=$(ldd $root/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk $root/usr/sbin/ovsdb-server | grep 'not found' || true)
if [ -n "$missing" ]; then
    echo "bench-peers: Open vSwitch lacks libraries:" >&2
    echo "$missing" >&2
    exit 1
fi
echo "bench-peers: unpacked $root"
