#!/usr/bin/env bash
# build.sh FOLDER: builds charon's plugin into FOLDER (target/charon-plugin when none is given) against the headers of the installed
# strongSwan, which hw-tests/setup.sh fetches. Does nothing when it is up to date. Prints the path of the plugin.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/../../target/charon-plugin}
version=$(dpkg-query -W -f '${source:Upstream-Version}' libstrongswan)
include=/usr/local/include/strongswan-$version
plugin=$folder/libstrongswan-kernel-sluicegate.so
if [ ! -s "$include/libcharon/daemon.h" ]; then
    echo "charon-plugin: no headers of strongSwan $version in $include: run 'sudo make setup'" >&2
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
