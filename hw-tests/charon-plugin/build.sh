#!/usr/bin/env bash
# build.sh [--tools]: builds charon's plugin for the installed strongSwan, or for the one below target/tools (--tools), against
# headers that hw-tests/setup.sh fetches. Does nothing when it is up to date. Prints the path of the plugin.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
tools=$target/tools
if [ "${1:-}" = --tools ]; then
    version=$(awk '$1 == "libstrongswan" { sub(/\+b[0-9]+$/, "", $2); print $2 }' "$tools/strongswan/packages")
elif ! version=$(dpkg-query -W -f '${source:Version}' libstrongswan 2>/dev/null); then
    echo "charon-plugin: strongSwan is not installed (charon-systemd strongswan-swanctl); --tools builds for that of the tests" >&2
    exit 1
fi
include=$tools/strongswan-headers-$version
folder=$target/charon-plugin/$version
plugin=$folder/libstrongswan-kernel-sluicegate.so
if [ ! -s "$include/libcharon/daemon.h" ]; then
    echo "charon-plugin: no headers of strongSwan $version in $include: run 'make setup'" >&2
    exit 1
fi
mkdir -p "$folder"
for source in "$here"/* "$include/libcharon/daemon.h"; do
    [ "$plugin" -nt "$source" ] || stale=yes
done
if [ -n "${stale:-}" ]; then
    # Other tests may build it at the same time: each its own file, then in its place at once.
    cc -std=gnu11 -include "$here/config.h" -O2 -g -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -fPIC -shared \
        -I "$include/libstrongswan" -I "$include/libcharon" -o "$plugin.$$" "$here/kernel_sluicegate.c"
    mv "$plugin.$$" "$plugin"
fi
echo "$plugin"
