#!/usr/bin/env bash
# image.sh [--fetch]: makes what a virtual machine of the lab boots, and prints its folder, named after the kernel's version:
#   vmlinuz    Debian's stock kernel, as its package has it
#   initrd.gz  busybox, iproute2, the kernel's own modules that the peer uses, `init` and `peer.c` of this folder
# The kernel comes from apt, once; it and the image are kept below target/vm, so that tests need no network. Several may run at
# once: they take turns. --fetch does not print the folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target == /* ]] || target=$root/$target
cache=$target/vm
PATH=$PATH:/usr/sbin:/sbin

# What the peer uses; what these need comes by their dependencies. drbg makes the first AES-GCM SA work: seqiv asks it for a salt.
# drbg asks for jitterentropy and sha512 by name only, jitterentropy for sha3.
modules=(
    virtio_pci virtio_net virtio_console            # its devices
    sha3_generic sha512_generic hmac ctr jitterentropy_rng drbg seqiv gcm aesni_intel xfrm_user esp4 esp6
    xfrm4_tunnel tunnel6 veth dummy vrf
    fou ipip mpls_router mpls_iptunnel
)

fail() {
    echo "image.sh: $1" >&2
    exit 1
}

# Unpacked by ../setup.sh where none is installed; static.
busybox=$target/tools/vm/usr/bin/busybox
[ -x "$busybox" ] || busybox=$(command -v busybox) || fail "busybox is missing: run 'make setup'"
for program in cpio modprobe depmod dpkg-deb ip cc flock; do
    command -v $program >/dev/null || fail "$program is missing: run 'make setup'"
done
mkdir -p "$cache"
exec 9>"$cache/lock"
flock -w 600 9 || fail "another one has held $cache/lock for ten minutes"
rm -rf "$cache"/work.*      # of one that was killed
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The newest kernel in the cache, by version.
cached_kernel() {
    find "$cache" -maxdepth 1 -name 'kernel-*' -type d | sort -V | tail -1
}

# The package that linux-image-amd64 stands for now: its name has the ABI's number.
download() {
    local package
    package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" { print $2; exit }')
    [ -n "$package" ] || return 1
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >apt.log 2>&1)
}

fetch_kernel() {
    local package version
    # Lists of long ago name packages that the mirror does not have any more.
    if ! download; then
        [ "$(id -u)" -ne 0 ] || apt-get update -q >"$work/update.log" 2>&1 || cat "$work/update.log" >&2
        download || {
            cat "$work/apt.log" >&2 2>/dev/null || true
            fail "apt has no kernel linux-image-amd64: run 'apt-get update' on a Debian machine with a network"
        }
    fi
    package=$(find "$work" -name '*.deb' | head -1)
    mkdir "$work/kernel"
    # Of the modules only where those above can be: the whole tree is some hundred megabytes.
    dpkg-deb --fsys-tarfile "$package" >"$work/kernel.tar"
    tar xf "$work/kernel.tar" -C "$work/kernel" --wildcards './boot/vmlinuz-*' './*lib/modules/*/modules.*' \
        './*lib/modules/*/kernel/arch/*' './*lib/modules/*/kernel/crypto/*' './*lib/modules/*/kernel/lib/*' \
        './*lib/modules/*/kernel/net/*' './*lib/modules/*/kernel/drivers/char/*' './*lib/modules/*/kernel/drivers/virtio/*'
    tar xf "$work/kernel.tar" -C "$work/kernel" --wildcards --no-wildcards-match-slash \
        './lib/modules/*/kernel/drivers/net/*.ko*' 2>/dev/null ||
        tar xf "$work/kernel.tar" -C "$work/kernel" --wildcards --no-wildcards-match-slash \
            './usr/lib/modules/*/kernel/drivers/net/*.ko*'
    # Debian moved /lib to /usr/lib.
    [ -d "$work/kernel/lib" ] || mv "$work/kernel/usr/lib" "$work/kernel/lib"
    version=$(basename "$work"/kernel/boot/vmlinuz-*)
    version=${version#vmlinuz-}
    depmod -b "$work/kernel" "$version"
    mv -T "$work/kernel" "$cache/kernel-$version"
}

kernel=$(cached_kernel)
if [ -z "$kernel" ]; then
    fetch_kernel
    kernel=$(cached_kernel)
fi
version=${kernel#"$cache/kernel-"}

# One image for each set of what goes into it.
made_from=$({
    sha256sum "$here/image.sh" "$here/init" "$here/peer.c"
    sha256sum "$busybox" "$(command -v ip)"
} | cut -d' ' -f1 | sha256sum | cut -c1-16)
image=$cache/$version-$made_from

# copy_program FILE FOLDER: with the libraries that it is linked to
copy_program() {
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        install -D "$library" "$work/root$library"
    done
    install -D "$1" "$work/root/$2/$(basename "$1")"
}

make_image() {
    local module file name list
    mkdir -p "$work"/root/{bin,sbin,dev,proc,sys,run,tmp,modules} "$work/image"
    copy_program "$busybox" bin
    copy_program "$(command -v ip)" sbin
    cc -static -O1 -Wall -Werror -o "$work/root/sbin/peer" "$here/peer.c"
    install "$here/init" "$work/root/init"
    list=$work/root/modules/list
    : >"$list"
    for module in "${modules[@]}"; do
        modprobe -d "$kernel" -S "$version" --show-depends "$module" >"$work/depends" ||
            fail "the kernel $version has no module $module"
        # "builtin NAME", or "insmod FILE [OPTIONS]"
        awk '$1 == "insmod" { print $2 }' "$work/depends" | while read -r file; do
            name=$(basename "$file" .xz)
            grep -qx "$name" "$list" && continue
            case $file in
                *.xz) xz -dc "$file" >"$work/root/modules/$name" ;;
                *) cp "$file" "$work/root/modules/$name" ;;
            esac
            echo "$name" >>"$list"
        done
    done
    (cd "$work/root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/image/initrd.gz"
    cp "$kernel/boot/vmlinuz-$version" "$work/image/vmlinuz"
    echo "$version" >"$work/image/version"
    mv -T "$work/image" "$image"
}

[ -d "$image" ] || make_image
[ "${1:-}" = --fetch ] || echo "$image"
