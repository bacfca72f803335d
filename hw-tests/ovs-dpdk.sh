#!/usr/bin/env bash
# Open vSwitch on DPDK, without huge pages, its own or anybody's daemons: plays two captures for ever, routes what is in the first
# (both addresses written, TTL decremented), and prints packets and nanoseconds of CPU time of its forwarding thread.
#
#   ovs-dpdk.sh ROOT CORE SECONDS CAPTURE CAPTURE      (as root; ROOT: where the packages are unpacked)
set -euo pipefail

root=$1 core=$2 seconds=$3
shift 3
folder=$(mktemp -d /run/sluicegate-ovs-XXXXXX)
finish() {
    local pid
    for pid in "$folder"/*.pid; do
        [ ! -s "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
    done
    for _ in $(seq 50); do
        compgen -G "$folder/*.pid" >/dev/null || break
        sleep 0.1
    done
    rm -rf "$folder"
}
trap finish EXIT
export OVS_RUNDIR=$folder OVS_LOGDIR=$folder OVS_DBDIR=$folder OVS_SYSCONFDIR=$folder RUNTIME_DIRECTORY=$folder
export OVS_PKGDATADIR=$root/usr/share/openvswitch
die() {
    grep -hE '\|(ERR|EMER)\|' "$folder"/*.log 2>/dev/null | tail -2 >&2
    echo "$1" >&2
    exit 1
}

"$root/usr/bin/ovsdb-tool" create "$folder/conf.db" "$OVS_PKGDATADIR/vswitch.ovsschema"
"$root/usr/sbin/ovsdb-server" "$folder/conf.db" "--remote=punix:$folder/db.sock" "--pidfile=$folder/ovsdb.pid" --detach \
    "--log-file=$folder/ovsdb.log" -vconsole:off
vsctl=("$root/usr/bin/ovs-vsctl" "--db=unix:$folder/db.sock" -t 20)
"${vsctl[@]}" --no-wait init
# Legacy memory: together with --in-memory, which it would add, EAL takes no --no-huge.
"${vsctl[@]}" --no-wait set Open_vSwitch . other_config:dpdk-init=true \
    "other_config:dpdk-extra=--no-huge --legacy-mem -m 1400 --no-pci --no-telemetry --no-shconf" \
    "other_config:pmd-cpu-mask=$(printf '0x%x' $((1 << core)))" "other_config:dpdk-lcore-mask=$(printf '0x%x' $((1 << (1 - core))))"
"$root/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk" "unix:$folder/db.sock" "--pidfile=$folder/vswitchd.pid" --detach \
    "--log-file=$folder/vswitchd.log" -vconsole:off >/dev/null 2>&1 || die "ovs-vswitchd does not start"
"${vsctl[@]}" add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure 2>/dev/null || die "no bridge"
number=0
for capture in "$@"; do
    "${vsctl[@]}" add-port br0 "p$number" -- set Interface "p$number" type=dpdk "ofport_request=$((number + 1))" \
        "options:dpdk-devargs=net_pcap$number,rx_pcap=$capture,infinite_rx=1" >/dev/null 2>&1 || die "no port of DPDK"
    number=$((number + 1))
done
rewrite='mod_dl_src:02:00:00:00:00:03,mod_dl_dst:02:00:00:00:00:30,dec_ttl'
"$root/usr/bin/ovs-ofctl" add-flow "$folder/br0.mgmt" "in_port=1,ip,actions=$rewrite,output:2"
"$root/usr/bin/ovs-ofctl" add-flow "$folder/br0.mgmt" "in_port=2,ip,actions=$rewrite,output:1"
pid=$(cat "$folder/vswitchd.pid")
appctl=("$root/usr/bin/ovs-appctl" -t "$(compgen -G "$folder/ovs-vswitchd*.ctl")")
cpu() {
    local task
    for task in /proc/"$pid"/task/*; do
        case $(cat "$task/comm") in
        pmd-*) cut -d' ' -f1 "$task/schedstat" ;;
        esac
    done
}
packets() {
    "${appctl[@]}" dpif-netdev/pmd-stats-show | awk '/^main/ { exit } /packets received:/ { sum += $3 } END { print sum + 0 }'
}
# The first packets of all flows.
sleep 1
packets=$(packets) spent=$(cpu)
sleep "$seconds"
packets=$(($(packets) - packets)) spent=$(($(cpu) - spent))
[ "$packets" -gt 0 ] || die "nothing was forwarded"
echo "$packets $spent"
