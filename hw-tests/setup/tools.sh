# Sourced by ../setup.sh: programs that are unpacked below target/tools, one folder a set, and not installed. A set is complete in
# itself, with its C library, so that no version of anything installed matters to it; in-root.sh runs its programs. Uses $work.

# has_tool SET PACKAGE
has_tool() {
    grep -qs "^$2 " "$tools/$1/packages"
}

# plan_tools PACKAGE...: in $work/plan.tools, what would be installed on a machine that has nothing
plan_tools() {
    : >"$work/status"
    apt_get newer -o Dir::State::status="$work/status" install --simulate "$@" >"$work/plan.tools" 2>"$work/plan.errors" || {
        cat "$work/plan.errors" >&2
        echo "setup: apt has no $*: run apt-get update, and see that /etc/apt/sources.list names the release's archive" >&2
        return 1
    }
}

# unpack_tools SET PACKAGE...
unpack_tools() (
    set=$1
    shift
    mkdir -p "$tools"
    exec 8>"$tools/lock"
    flock 8
    folder=$(mktemp -d "$tools/.new.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    trap 'exit 130' INT TERM
    plan_tools "$@"
    mkdir -p "$folder/archives/partial" "$folder"/root/usr/{bin,sbin,lib,lib64,local,src}
    if ! apt_get newer -o Dir::State::status="$work/status" -o Dir::Cache::archives="$folder/archives" -o Debug::NoLocking=1 \
        install --yes --download-only "$@" >"$folder/log" 2>&1; then
        cat "$folder/log" >&2
        echo "setup: apt cannot fetch $*" >&2
        exit 1
    fi
    for link in bin sbin lib lib64; do
        ln -s usr/$link "$folder/root/$link"
    done
    for archive in "$folder"/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$archive" |
            tar x -C "$folder/root" --keep-directory-symlink --no-same-owner --exclude='./usr/share/'{doc,man,info,locale,iso-codes,perl} \
                --exclude=./etc --exclude=./var --exclude='./usr/lib/systemd' --exclude='./lib/systemd'
    done
    # What was wanted: a program that only came along, as a part of what these need, is not taken from here.
    for package in "$@"; do
        for archive in "$folder/archives/${package}"_*.deb; do
            dpkg-deb --fsys-tarfile "$archive" | tar t | sed -nE 's#^\./(usr/)?s?bin/([^/]+)$#\2#p'
        done
    done | sort -u >"$folder/root/programs"
    awk '$1 == "Inst" { for (i = 3; i <= NF; i++) if ($i ~ /^\(/) { print $2, substr($i, 2); break } }' "$work/plan.tools" \
        >"$folder/root/packages"
    rm -rf "${tools:?}/$set"
    mv -T "$folder/root" "$tools/$set"
)
