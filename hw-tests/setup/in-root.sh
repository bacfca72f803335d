#!/usr/bin/env bash
# in-root.sh FOLDER PROGRAM [ARGUMENT...]: runs a program of target/tools/SET (tools.sh), as root. It sees the machine as it is,
# except that /usr is the set's: programs, libraries, and what they look for by name (plugins, firmware). No other process does.
# TOOL_PRELOAD: a library that is loaded into it first.
set -euo pipefail
if [ "${IN_ROOT:-}" != "$1" ]; then
    IN_ROOT=$1 exec unshare --mount -- "$0" "$@"
fi
unset IN_ROOT
folder=$1
shift
for name in local src; do
    [ ! -d /usr/$name ] || mount --rbind /usr/$name "$folder/usr/$name"
done
# Where these are no links into /usr yet, they are part of it all the same.
over=()
for name in bin sbin lib lib64; do
    [ -L /$name ] || [ ! -d /$name ] || over+=("$name")
done
for name in "${over[@]}"; do
    mount --rbind "$folder/usr/$name" "/$name"
done
mount --rbind "$folder/usr" /usr
hash -r
if [ -n "${TOOL_PRELOAD:-}" ]; then
    export LD_PRELOAD=$TOOL_PRELOAD
    unset TOOL_PRELOAD
fi
exec "$@"
