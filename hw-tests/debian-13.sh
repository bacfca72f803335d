#!/usr/bin/env bash
# debian-13.sh COMMAND: Debian 13 with its DPDK (24.11), gcc and libclang in a folder below target, kept from one run to the next.
#   make                        fetches and unpacks it, if it is not there
#   build                       the same, and builds the programs and libraries that need DPDK in it
#   test                        the same, and runs their tests in it
#   judge                       of these the ones that ask the mlx5 driver about every rule; only where it has been made before
#   run PROGRAM [ARGUMENT...]   runs a program in it, in the folder that this one is run in
# Exit status 3: this machine cannot have it; the last line says why. What a build there leaves is in target/debian-13/target.
#
# A program in it sees this machine's kernel, network, devices, /tmp and the checkout; toolchain and crates are this machine's. It is
# mounted together in a mount namespace that ends with the program, however that ends.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
cache=$target/debian-13
machine=$cache/root
series=24.11
packages=(gcc libc6-dev pkg-config libclang1-19 libclang-common-19-dev libdpdk-dev dpdk-dev libibverbs-dev xz-utils)
# shellcheck source=hw-tests/setup/mirror.sh
. "$here/setup/mirror.sh"

say() {
    echo "debian-13: $*"
}

cannot() {
    say "$*" >&2
    exit 3
}

# What a root is made from: another one is made when it changes.
recipe() {
    cat "$here/setup/headers.sh" "$here/setup/driver-$series.sed" <(echo "$series ${packages[*]}") | sha256sum | cut -d' ' -f1
}

is_there() {
    [ "$(cat "$machine/etc/sluicegate-recipe" 2>/dev/null)" = "$(recipe)" ]
}

# ---- making it ----

make_root() {
    is_there && return
    [ "$(id -u)" -eq 0 ] || cannot "a Debian in a folder needs root"
    unshare --mount true 2>/dev/null || cannot "no mount namespaces here"
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    ! is_there || return 0
    command -v debootstrap >/dev/null || cannot "debootstrap is not installed: run 'make setup FOR=test'"
    mirror=${DEBIAN_MIRROR:-$(mirror_of trixie)}
    # One mirror has all releases.
    mirror=${mirror:-$(mirror_of bookworm)}
    [ -n "$mirror" ] || cannot "apt names no mirror of Debian here: set DEBIAN_MIRROR"
    wget -q --spider -T 20 "$mirror/dists/trixie/Release" || cannot "$mirror cannot be reached, or has no Debian 13"
    rm -rf --one-file-system "$cache"/new.* # of one that was killed
    folder=$(mktemp -d "$cache/new.XXXXXX")
    trap 'rm -rf --one-file-system "$folder"' EXIT
    trap 'exit 130' INT TERM HUP
    local begun=$SECONDS
    say "fetching Debian 13 and DPDK $series: 200 MB, once"
    if ! debootstrap --variant=minbase trixie "$folder/root" "$mirror" >"$folder/log" 2>&1; then
        tail -20 "$folder/log" >&2
        say "FAILED: debootstrap" >&2
        exit 1
    fi
    # Nobody reads manuals there, or links DPDK statically.
    printf 'path-exclude=%s\n' '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/locale/*' '/usr/lib/*/librte_*.a' \
        '/usr/lib/*/libcrypto.a' '/usr/lib/*/libIPSec_MB.a' >"$folder/root/etc/dpkg/dpkg.cfg.d/small"
    printf '#!/bin/sh\nexit 101\n' >"$folder/root/usr/sbin/policy-rc.d"
    chmod +x "$folder/root/usr/sbin/policy-rc.d"
    cp /etc/resolv.conf "$folder/root/etc/resolv.conf"
    machine=$folder/root in_root bash "$here/debian-13.sh" --fill "${packages[@]}" >"$folder/log" 2>&1 || {
        tail -20 "$folder/log" >&2
        say "FAILED: no DPDK $series" >&2
        exit 1
    }
    rm -rf "$machine" "$cache/target"
    recipe >"$folder/root/etc/sluicegate-recipe"
    mv -T "$folder/root" "$machine"
    say "made in $((SECONDS - begun)) s, $(du -smx "$machine" | cut -f1) MB"
}

# Inside: packages, and the headers that DPDK keeps for drivers.
fill() {
    local version
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q install --yes --no-install-recommends "$@"
    version=$(pkg-config --modversion libdpdk)
    if [[ $version != "$series".* ]]; then
        echo "Debian 13 has DPDK $version, not $series"
        return 1
    fi
    # shellcheck source=hw-tests/setup/headers.sh
    . "$here/setup/headers.sh"
    install_driver_headers "$version"
    rm -rf /var/cache/apt/archives/*.deb /var/cache/apt/*.bin /var/lib/apt/lists/*
}

# ---- running something in it ----

# in_root PROGRAM [ARGUMENT...]: in a process of its own.
in_root() {
    unshare --mount -- "$here/debian-13.sh" --inside "$machine" "$@"
}

# Every environment variable but a few is this machine's own business.
inside() {
    machine=$1
    shift
    local cargo=${CARGO_HOME:-$HOME/.cargo} sysroot here=$PWD folder
    sysroot=$(cd "$root" && rustc --print sysroot)
    mount --bind "$machine" "$machine"
    for folder in /proc /sys /dev; do
        mount --rbind "$folder" "$machine$folder"
    done
    # EAL takes no driver from below a folder that everybody may write to.
    mount -t tmpfs -o mode=755 tmpfs "$machine/run"
    mkdir -p "$cargo" "$cache/target"
    for folder in /tmp "$cargo" "$root" "$cache/target"; do
        mkdir -p "$machine$folder"
        mount --bind "$folder" "$machine$folder"
    done
    mkdir -p "$machine/opt/rust"
    mount --bind -o ro "$sysroot" "$machine/opt/rust"
    exec chroot "$machine" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 TERM=dumb CARGO_TERM_COLOR=never CARGO_NET_OFFLINE=true \
        CARGO_HOME="$cargo" CARGO_TARGET_DIR="$cache/target" SLUICEGATE_BIN_DIR="$cache/target/debug" SLUICEGATE_NEWER_DPDK=here \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
        ${RUST_BACKTRACE:+RUST_BACKTRACE="$RUST_BACKTRACE"} ${CI:+CI="$CI"} \
        sh -c 'cd "$0" && exec "$@"' "$here" "$@"
}

# ---- DPDK's part of the workspace ----

# The crates that see no DPDK are the same here and there: same compiler, same paths. What the machine's own build has made of them is
# taken over once, where its C library is no newer than the root's.
seed() {
    [ ! -d "$cache/target/debug" ] && [ -d "$target/debug/deps" ] || return 0
    local own theirs parts=(deps build .fingerprint) crate without=()
    own=$(getconf GNU_LIBC_VERSION) theirs=$(in_root getconf GNU_LIBC_VERSION)
    [ "$(printf '%s\n' "${own##* }" "${theirs##* }" | sort -V | tail -1)" = "${theirs##* }" ] || return 0
    for crate in dpdk-sys nic-twin mlx5-judge dpu-fastpath hw-tests; do
        without+=(! -path "*/$crate-*" ! -path "*/*${crate//-/_}*")
    done
    rm -rf "$cache/target/seed"
    mkdir -p "$cache/target/seed"
    # Libraries and what cargo knows of them; not the programs beside them.
    (cd "$target/debug" && find "${parts[@]}" -type f \( -path 'deps/*.*' -o ! -path 'deps/*' \) "${without[@]}" -print0) |
        tar c -C "$target/debug" --null --files-from=- | tar x -C "$cache/target/seed"
    mv -T "$cache/target/seed" "$cache/target/debug"
}

build() {
    make_root
    cd "$root"
    # What the host's build has not fetched yet.
    cargo fetch --quiet --locked
    seed
    in_root cargo build --quiet --locked -p dpu-fastpath -p fallback-sw -p host-ctl -p nic-twin -p mlx5-judge
}

run_tests() {
    build
    say "DPDK $(in_root pkg-config --modversion libdpdk)"
    # Fewer of the generated cases: those are the machine's own DPDK's, too.
    local failed=0
    in_root env CASES=100 cargo test --locked --no-fail-fast -p dpdk-sys -p nic-twin -p dpu-fastpath || failed=1
    judge || failed=1
    return "$failed"
}

judge() {
    in_root cargo test --locked -p hw-tests --test mlx5_judge
}

case ${1:-} in
    make) make_root ;;
    build) build ;;
    test) run_tests ;;
    judge)
        is_there || cannot "DPDK $series is not here yet: hw-tests/debian-13.sh make fetches it, as make test does"
        [ "$(id -u)" -eq 0 ] || cannot "DPDK $series is in a folder that needs root"
        build
        judge
        ;;
    run)
        shift
        is_there || cannot "it is not made yet: run hw-tests/debian-13.sh make"
        exec unshare --mount -- "$here/debian-13.sh" --inside "$machine" "$@"
        ;;
    --fill)
        shift
        fill "$@"
        ;;
    --inside)
        shift
        inside "$@"
        ;;
    *)
        sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
        exit 1
        ;;
esac
