#!/usr/bin/env bash
# fresh-machine.sh [--full] [VARIANT...]: sets up the demo in Debian 12 as it is after its installation, in a folder below target, and
# sees that it succeeds in time, that no package goes or changes its version, that no service is started or enabled, and that a second
# run has nothing to do and needs no network. Variants, both when none is named:
#   plain       what debootstrap makes of --variant=minbase: no init
#   backports   systemd, udev, busybox, and qemu-utils from backports, which lets no QEMU of the release be installed
# --full: then also everything else (make setup), and make demo.
#
# The machine shares this one's kernel and network; its processes, mounts, /run and /tmp are its own and end with this script, however
# it ends. No init runs: on `backports` a systemctl that writes down what it is asked for stands in for systemd.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
cache=$target/fresh-machine
# shellcheck source=hw-tests/setup/mirror.sh
. "$here/setup/mirror.sh"
mirror=${DEBIAN_MIRROR:-$(mirror_of bookworm)}
security=${DEBIAN_SECURITY_MIRROR:-$(mirror_of bookworm-security)}
# Seconds: what the demo's part may take, with what it fetches. A busy machine or a slow network is not a fault of the set-up.
goal=120
limit=${FRESH_MACHINE_LIMIT:-400}

say() {
    echo "fresh-machine: $*"
}

skip() {
    say "SKIPPED: $*"
    exit 0
}

fail() {
    say "$variant: FAILED: $*" >&2
    exit 1
}

# ---- outside ----

# The base system, kept for a week.
make_base() {
    base=$cache/bookworm.tar
    if [ -n "$(find "$base" -mtime -7 2>/dev/null)" ]; then
        return
    fi
    say "fetching Debian 12"
    if ! debootstrap --variant=minbase bookworm "$folder/base" "$mirror" >"$folder/log" 2>&1; then
        tail -20 "$folder/log" >&2
        say "FAILED: debootstrap" >&2
        exit 1
    fi
    # Not the packages that it is made of.
    rm -rf "$folder"/base/var/cache/apt/archives/*.deb
    tar cf "$folder/base.tar" -C "$folder/base" .
    rm -rf "$folder/base"
    mv "$folder/base.tar" "$base"
}

outside() {
    [ "$(id -u)" -eq 0 ] || skip "a Debian in a folder needs root"
    command -v debootstrap >/dev/null || skip "debootstrap is not installed: run 'make setup'"
    unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces of mounts and processes here"
    [ -n "$mirror" ] || skip "apt names no mirror of Debian 12 here: set DEBIAN_MIRROR"
    [ -s "$cache/bookworm.tar" ] || wget -q --spider -T 20 "$mirror/dists/bookworm/Release" || skip "$mirror cannot be reached"
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock -n 9 || { say "another one runs in $cache" >&2; exit 1; }
    rm -rf "$cache"/run.*       # of one that was killed
    folder=$(mktemp -d "$cache/run.XXXXXX")
    inside=""
    # Its first process takes all the others and every mount along.
    finish() {
        [ -z "$inside" ] || { kill -KILL "$inside" 2>/dev/null; wait "$inside" 2>/dev/null; } || true
        rm -rf --one-file-system "$folder"
    }
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    make_base
    for variant in "${variants[@]}"; do
        mkdir "$folder/machine"
        setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child -- "$0" --inside "$variant" "$folder/machine" "$full" </dev/null 9>&- &
        inside=$!
        wait "$inside" || exit 1
        inside=""
        rm -rf --one-file-system "$folder/machine"
    done
    say ok
}

# ---- inside ----

# on_machine COMMAND...: with the toolchain of this machine, and nothing else of its environment but a proxy
on_machine() {
    chroot "$machine" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb CARGO_TERM_COLOR=never \
        PATH=/root/.cargo/bin:/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        ${authorities:+CARGO_HTTP_CAINFO=/opt/authorities.crt} "$@"
}

packages() {
    on_machine dpkg-query -W -f '${Package}:${Architecture} ${Version} ${db:Status-Abbrev}\n' | sort
}

# What starts at the next boot. A link of System V is none where the package has a unit of that name.
enabled() {
    local link name
    { find "$machine"/etc/systemd/system "$machine"/etc/rc?.d -name '*.service' -o -name '*.socket' -o -name '*.timer' -o -name 'S*' \
        2>/dev/null || true; } | while read -r link; do
        name=$(basename "$link" | sed 's/^S[0-9][0-9]//')
        [[ $link == */rc?.d/* && -e $machine/lib/systemd/system/$name.service ]] || echo "${link#"$machine"}"
    done | sort
}

# What runs in this namespace beside this script; what only just ends is given a second. No program is run to find out.
processes() {
    local id name left attempt
    for attempt in 1 2 3 4 5 6; do
        left=""
        for id in "$machine"/proc/[0-9]*; do
            id=${id##*/}
            [ "$id" = $$ ] || [ "$id" = "$BASHPID" ] || ! read -r name 2>/dev/null <"$machine/proc/$id/comm" || left+=" $name($id)"
        done
        [ -n "$left" ] || return 0
        [ "$attempt" = 6 ] || sleep 0.2
    done
    echo "$left"
}

build_machine() {
    tar xf "$cache/bookworm.tar" -C "$machine"
    mount --bind "$machine" "$machine"
    mount -t proc proc "$machine/proc"
    mount -t sysfs -o ro sysfs "$machine/sys"
    mount -t tmpfs tmpfs "$machine/run"
    mount -t tmpfs tmpfs "$machine/tmp"
    mount --rbind /dev "$machine/dev"
    mkdir "$machine/run/systemd"
    cp /etc/resolv.conf "$machine/etc/resolv.conf"
    cat >"$machine/etc/apt/sources.list" <<LIST
deb $mirror bookworm main
deb $mirror bookworm-updates main
LIST
    [ -z "$security" ] || echo "deb $security bookworm-security main" >>"$machine/etc/apt/sources.list"
    printf '#!/bin/sh\nexit 101\n' >"$machine/usr/sbin/policy-rc.d"
    chmod +x "$machine/usr/sbin/policy-rc.d"
    if [ "$variant" = backports ]; then
        echo "deb $mirror bookworm-backports main" >>"$machine/etc/apt/sources.list"
        on_machine apt-get update -q >/run/log 2>&1 || { tail -5 /run/log >&2; fail "apt-get update"; }
        on_machine env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            systemd-sysv udev dbus busybox >/run/log 2>&1 || { tail -5 /run/log >&2; fail "apt-get install systemd-sysv"; }
        on_machine env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -t bookworm-backports \
            qemu-utils >/run/log 2>&1 || { tail -5 /run/log >&2; fail "apt-get install qemu-utils"; }
        # Maintainers' scripts take this for a running systemd.
        mkdir "$machine/run/systemd/system"
        mv "$machine/bin/systemctl" "$machine/bin/systemctl.own"
        cat >"$machine/bin/systemctl" <<'SYSTEMCTL'
#!/bin/sh
echo "$@" >>/var/log/asked
case "$*" in
    *is-enabled*) exec systemctl.own "$@" ;;
    *is-active*) exit 3 ;;
esac
SYSTEMCTL
        chmod +x "$machine/bin/systemctl"
    fi
    rm "$machine/usr/sbin/policy-rc.d"
    # make is what a user types.
    on_machine sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends make' \
        >/run/log 2>&1 || { tail -5 /run/log >&2; fail "apt-get install make"; }
    rm -rf "$machine"/var/lib/apt/lists/*
}

# The toolchain and the crates of this machine, neither of which it can change; the checkout as it is, uncommitted changes too.
bring_in() {
    local registry=${CARGO_HOME:-$HOME/.cargo}/registry
    mkdir -p "$machine/opt/rust" "$machine/root/.cargo/registry" "$machine/root/sluicegate" /run/over/{upper,work}
    mount --bind -o ro "$(cd "$root" && rustc --print sysroot)" "$machine/opt/rust"
    if [ "$full" = full ] && [ -d "$registry" ]; then
        mount -t overlay overlay -o "lowerdir=$registry,upperdir=/run/over/upper,workdir=/run/over/work" \
            "$machine/root/.cargo/registry" 2>/dev/null || cp -a "$registry/." "$machine/root/.cargo/registry"
    fi
    authorities=/etc/ssl/certs/ca-certificates.crt
    if [ -s "$authorities" ]; then cp "$authorities" "$machine/opt/authorities.crt"; else authorities=""; fi
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar c --null --files-from=- --ignore-failed-read) |
        tar x -C "$machine/root/sluicegate"
}

# run_make LOG TARGET [VARIABLE]: seconds that it took are in $took
run_make() {
    local log=$1 begun=$SECONDS
    shift
    on_machine make -C /root/sluicegate "$@" >"$log" 2>&1 || {
        tail -40 "$log" >&2
        fail "make $*: its last words are above"
    }
    took=$((SECONDS - begun))
}

# Whether everything that was there is as it was.
unharmed() {
    local changed asked
    changed=$(comm -23 /run/before <(packages))
    [ -z "$changed" ] || fail "make $1 has removed or replaced: $changed"
    changed=$(comm -13 /run/enabled <(enabled) | tr '\n' ' ')
    [ -z "$changed" ] || fail "make $1 has enabled: $changed"
    asked=$(grep -E '^(.* )?(start|restart|reload-or-restart|enable|isolate)( |$)' "$machine/var/log/asked" 2>/dev/null || true)
    [ -z "$asked" ] || fail "make $1 has asked systemd for: $asked"
    [ ! -e "$machine/usr/sbin/policy-rc.d" ] || fail "make $1 has left its policy-rc.d"
    changed=$(processes)
    [ -z "$changed" ] || fail "make $1 has left processes: $changed"
}

inside() {
    # What is mounted here is not seen outside. A folder for what is not the machine's:
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    build_machine
    bring_in
    packages >/run/before
    enabled >/run/enabled

    if [ "$variant" = backports ]; then
        # That a service which starts is seen.
        on_machine deb-systemd-invoke start e2scrub_reap.service >/dev/null
        grep -q 'start e2scrub_reap' "$machine/var/log/asked" || fail "nobody writes down what systemd is asked for"
        rm "$machine/var/log/asked"
    fi
    run_make /run/setup.log setup FOR=demo
    say "$variant: make setup FOR=demo says:"
    sed 's/^/    /' /run/setup.log
    [ "$took" -le "$limit" ] || fail "make setup FOR=demo took $took s, more than $limit"
    unharmed "setup FOR=demo"
    if [ "$variant" = backports ]; then
        on_machine dpkg-query -W -f '${Version}' qemu-utils | grep -q bpo12 || fail "qemu-utils is not the one from backports"
    fi
    local new=$(($(packages | wc -l) - $(wc -l </run/before)))
    say "$variant: set up for the demo in $took s (goal: $goal); $new packages came, none went or changed, no service started or enabled"

    local begun=$SECONDS again
    # Without a network: in a namespace that has none.
    again=$(on_machine unshare --net make -C /root/sluicegate setup FOR=demo 2>&1) || fail "the second run: $again"
    grep -q 'everything is there$' <<<"$again" || fail "the second run did something: $again"
    [ $((SECONDS - begun)) -le 20 ] || fail "the second run took $((SECONDS - begun)) s"
    say "$variant: a second run finds everything there, without a network"

    [ "$full" = full ] || return 0
    run_make /run/setup.log setup
    sed 's/^/    /' /run/setup.log
    unharmed setup
    say "$variant: set up for everything in $took s more"
    mount --make-rprivate "$machine"
    run_make /run/demo.log demo
    tail -15 /run/demo.log | sed 's/^/    /'
    grep -q 'demo: ok' /run/demo.log || fail "make demo did not end with 'demo: ok'"
    say "$variant: make demo in $took s"
}

if [ "${1:-}" = --inside ]; then
    variant=$2 machine=$3 full=$4
    inside
    exit 0
fi
full=short
variants=()
for argument; do
    case $argument in
        --full) full=full ;;
        plain | backports) variants+=("$argument") ;;
        *) say "'$argument' is no variant: say plain or backports" >&2; exit 1 ;;
    esac
done
[ ${#variants[@]} -gt 0 ] || variants=(plain backports)
variant=""
outside
