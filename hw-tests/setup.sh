#!/usr/bin/env bash
# setup.sh [--plan] [demo|test|lint|bench|all]: installs what that target of the Makefile uses, where it is missing: Debian packages, programs
# unpacked below target/tools, the headers that DPDK and strongSwan keep for plug-ins, the kernel that tests boot, cargo-deny. It says
# first what, how large, and for what. Nothing is removed from the machine and no service starts. Idempotent: with everything there it
# does nothing, and needs no rights and no network. --plan: only says what packages it would bring.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
tools=$target/tools
PATH=$PATH:/usr/sbin:/sbin

plan_only=
if [ "${1:-}" = --plan ]; then
    plan_only=yes
    shift
fi
case ${1:-all} in
    demo) parts="build demo" ;;
    test) parts="build demo test" ;;
    lint) parts="build lint" ;;
    bench) parts="build demo bench" ;;
    all) parts="build demo test lint bench" ;;
    *) echo "setup: '$1' is no target: say demo, test, lint, bench or all" >&2; exit 1 ;;
esac
if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust 1.95 or newer (https://rustup.rs)" >&2
    exit 1
fi
work=$(mktemp -d)
unpacking=""
trap '[ -z "$unpacking" ] || kill -- "-$unpacking" 2>/dev/null; forget_policy; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
# shellcheck source=hw-tests/setup/apt.sh
. "$here/setup/apt.sh"
# shellcheck source=hw-tests/setup/tools.sh
. "$here/setup/tools.sh"
# shellcheck source=hw-tests/setup/headers.sh
. "$here/setup/headers.sh"

installed() {
    [[ $(dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null) == *" installed"* ]]
}

# is_program NAME [WORD]: it is in PATH, runs, and has that word in what it says of its version: others bear the same name
is_program() {
    command -v "$1" >/dev/null || return 1
    [ -n "${2:-}" ] || return 0
    local said
    case $1 in
        ping) said=$("$1" -V 2>&1 </dev/null) ;;
        busybox) said=$("$1" 2>&1 </dev/null) ;;
        *) said=$("$1" --version 2>&1 </dev/null) ;;
    esac || true
    [[ $said == *"$2"* ]]
}

# libclang's library and the headers of that version, where bindgen looks
has_libclang() {
    compgen -G "/usr/lib/llvm-*/lib/clang/*/include/stddef.h" >/dev/null || compgen -G "${LIBCLANG_PATH:-/nowhere}/clang/*" >/dev/null || return 1
    compgen -G "/usr/lib/llvm-*/lib/libclang[.-][s0-9]*" >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]
}

# is_there SET PACKAGE CHECK
is_there() {
    local check
    read -ra check <<<"$3"
    case ${check[0]} in
        program) is_program "${check[@]:1}" || { [ "$1" = apt ] && has_tool spare "$2"; } ;;
        file) [ -s "${check[1]}" ] ;;
        installed) installed "$2" ;;
        libclang) has_libclang ;;
    esac || { [ "$1" != apt ] && has_tool "$1" "$2"; }
}

# The version that the release has, or the one whose library is there.
libclang_version() {
    local version
    version=$(dpkg-query -W -f '${Package}\n' 'libclang1-[0-9]*' 2>/dev/null | sort -V | tail -1)
    version=${version:-$(apt-cache depends libclang1 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')}
    echo "${version#libclang1-}"
}

# missing: lines "SET PACKAGE CHECK" of what is not there, and $work/purposes
missing() {
    local where set package check purpose part clang=""
    while IFS='|' read -r where set package check purpose; do
        [[ $where != \#* && -n $package ]] || continue
        for part in ${where//,/ }; do
            [[ " $parts " == *" $part "* ]] || continue
            is_there "$set" "$package" "$check" && break
            if [[ $package == *LIBCLANG* ]]; then
                clang=${clang:-$(libclang_version)}
                package=${package/LIBCLANG/${clang:-14}}
            fi
            echo "$package|$purpose" >>"$work/purposes"
            echo "$set $package $check"
            break
        done
    done <"$here/setup/packages.txt"
}

# What apt cannot install beside what is there is unpacked like the tools, if it is a program; $packages is what is left.
set_apart() {
    local package alone=() left=() stuck=0
    for package in "${packages[@]}"; do
        if resolve "$package"; then
            left+=("$package")
        elif grep -q "^apt $package program" "$work/missing"; then
            alone+=("$package")
        else
            echo "setup: $package ($(grep -m1 "^$package|" "$work/purposes" | cut -d'|' -f2)) cannot be installed:" >&2
            why_not "$package" | sed 's/^/setup:   /' >&2
            stuck=1
        fi
    done
    [ "$stuck" = 0 ] || return 1
    packages=("${left[@]}")
    if [ ${#packages[@]} -gt 0 ] && ! resolve "${packages[@]}"; then
        echo "setup: each of these can be installed, but not all of them: ${packages[*]}" >&2
        why_not "${packages[0]}" | sed 's/^/setup:   /' >&2
        return 1
    fi
    sets[spare]="${alone[*]}"
}

install_missing() {
    local set package check lines
    packages=()
    declare -gA sets=()
    while read -r set package check; do
        if [ "$set" = apt ]; then packages+=("$package"); else sets[$set]+=" $package"; fi
    done <"$work/missing"
    if [ -z "$plan_only" ] && [ "$(id -u)" -ne 0 ] && [ ${#packages[@]} -gt 0 ]; then
        echo "setup: installing needs root: run 'sudo env PATH=\"\$PATH\" make setup', or install by hand: apt-get install ${packages[*]}" >&2
        return 1
    fi
    if [ ${#packages[@]} -gt 0 ] && ! resolve "${packages[@]}"; then
        set_apart
    fi

    echo "setup: what ${1:-all} needs and this machine has not:"
    if [ ${#packages[@]} -gt 0 ]; then
        sizes <"$work/plan" | say_sizes "installed by apt" "${packages[@]}"
        lines=$(upgrades)
        if [ -n "$lines" ]; then
            echo "  brought to the version that these need:"
            sed 's/^/    /' <<<"$lines"
        fi
    fi
    for set in "${!sets[@]}"; do
        [ -n "${sets[$set]}" ] || continue
        # shellcheck disable=SC2086
        plan_tools ${sets[$set]}
        # shellcheck disable=SC2086
        sizes <"$work/plan.tools" | say_sizes "only unpacked, $(basename "$target")/tools/$set" ${sets[$set]}
    done
    [ -z "$plan_only" ] || exit 0
    # Fetching and unpacking these goes on while apt, which does one thing at a time, installs the others. In a process group of its
    # own, which ends with the set-up.
    set -m
    unpack_sets &
    unpacking=$!
    set +m
    if [ ${#packages[@]} -gt 0 ]; then
        install_packages "${packages[@]}"
    fi
    wait "$unpacking"
    unpacking=""
}

unpack_sets() {
    local set
    for set in "${!sets[@]}"; do
        # shellcheck disable=SC2086
        [ -z "${sets[$set]}" ] || unpack_tools "$set" ${sets[$set]}
    done
}

# The versions of strongSwan whose headers a plugin is built against: of the unpacked one, and of the installed one.
strongswan_versions() {
    awk '$1 == "libstrongswan" { sub(/\+b[0-9]+$/, "", $2); print $2 }' "$tools/strongswan/packages" 2>/dev/null || true
    dpkg-query -W -f '${source:Version}\n' libstrongswan 2>/dev/null || true
}

done_something=
preferences >"$work/newer"
: >"$work/purposes"
missing >"$work/missing"
if [ -s "$work/missing" ]; then
    if [ "$(id -u)" -eq 0 ]; then
        apt_get newer update >"$work/update.log" 2>&1 || cat "$work/update.log" >&2
        # Names of packages can depend on the lists.
        : >"$work/purposes"
        missing >"$work/missing"
    fi
    install_missing "${1:-all}"
    done_something=yes
fi
[ -z "$plan_only" ] || { echo "setup: ${1:-all}: no package is missing"; exit 0; }
version=$(pkg-config --modversion libdpdk)
if ! have_driver_headers "$(driver_headers_dir "$version")"; then
    install_driver_headers "$version"
    done_something=yes
fi
if [[ " $parts " == *" test "* ]]; then
    mkdir -p "$tools"
    for version in $(strongswan_versions | sort -u); do
        if [ ! -s "$tools/strongswan-headers-$version/libcharon/daemon.h" ]; then
            install_strongswan_headers "$version"
            done_something=yes
        fi
    done
    # The kernel that the tests boot, so that they need no network.
    if ! "$here/vm/image.sh" --fetch; then
        echo "setup: without that kernel the tests with a virtual machine will fail" >&2
    fi
fi
if [[ " $parts " == *" lint "* ]] && ! command -v cargo-deny >/dev/null; then
    "$here/setup/cargo-deny.sh"
    done_something=yes
fi
if [ -n "$done_something" ]; then
    echo "setup: ${1:-all}: everything is there now"
else
    echo "setup: ${1:-all}: everything is there"
fi
