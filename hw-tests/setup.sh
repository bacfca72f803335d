#!/usr/bin/env bash
# Installs what building, the demo, the tests and the benchmarks use, where it is missing: Debian packages, and the headers that
# DPDK keeps for drivers. Idempotent: with everything there it does nothing, and needs no rights and no network.
set -euo pipefail

# package: a program of it (none: a library), and what it is used for
wanted=(
    iproute2:ip             # namespaces, links, routes
    ethtool:ethtool         # offloads off: complete frames on every link
    iputils-ping:ping
    traceroute:traceroute
    curl:curl
    nginx-light:nginx
    iperf3:iperf3
    nftables:nft            # the NAT in front of a customer edge
    tcpdump:tcpdump         # captures
    tshark:tshark           # dissects them
    python3-scapy:          # another implementation of ESP
    python3-cryptography:   # scapy's ciphers
    xz-utils:xz             # opens DPDK's source archive
    bzip2:bzip2             # opens strongSwan's
    strongswan-swanctl:swanctl          # IKE: its command line
    charon-systemd:charon-systemd       # IKE: its daemon
    libcharon-extra-plugins:            # ESP of its own, in user space: the peer of our ESP
    libstrongswan-standard-plugins:     # AES-GCM
    make:make
    gcc:cc                  # links the Rust programs
    pkg-config:pkg-config   # finds DPDK
    clang:clang             # reads DPDK's headers for the Rust bindings
    libclang-dev:
    libdpdk-dev:            # the library, and its virtual devices
    dpdk:dpdk-devbind.py    # binds NICs
    qemu-system-x86:qemu-system-x86_64  # the machine of a stock kernel, a peer of the tests
    seabios:                # its firmware
    busybox-static:busybox  # its programs
    cpio:cpio               # packs them
    kmod:modprobe           # finds the kernel's modules
    libc6-dev:              # its static part: a program that runs there
    dpdk-dev:dpdk-testpmd   # the judges of the NIC twin, and the neighbour of `make bench`
)
# AES-GCM of `--aead ipsec-mb`
[ "$(uname -m)" != x86_64 ] || wanted+=(libipsec-mb-dev:)

installed() {
    dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q ' installed$'
}

missing=()
for entry in "${wanted[@]}"; do
    package=${entry%%:*}
    program=${entry#*:}
    if [ -n "$program" ]; then
        PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
    else
        installed "$package" || missing+=("$package")
    fi
done
if ! command -v cargo >/dev/null; then
    echo "setup: cargo is missing: install Rust 1.95 or newer (https://rustup.rs)" >&2
    exit 1
fi

# apt-get with root's rights, or the command to type. Nothing that runs is removed for it.
apt_install() {
    # dpdk-dev needs rdma-core, so udev. A machine without udev (a container) would get the newest one, and with it a newer
    # libudev1 and systemd; the udev that goes with the libudev1 in use leaves them alone.
    if [[ " $* " == *dpdk* ]] && ! installed udev; then
        set -- "$@" "udev=$(dpkg-query -W -f '${Version}' libudev1)"
    fi
    echo "setup: installing $*"
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: installing needs root: run 'sudo make setup', or install by hand: apt-get install $*" >&2
        return 1
    fi
    if ! DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-remove "$@"; then
        echo "setup: apt cannot install these: upgrade the machine (apt-get upgrade), then run this again" >&2
        return 1
    fi
}

# What a DPDK driver is written against is in DPDK's source tree, not in libdpdk-dev. The NIC twin is a driver.
driver_headers=(ethdev_driver.h ethdev_vdev.h bus_vdev_driver.h dev_driver.h bus_driver.h)
# Adds what libdpdk-dev has up to 25.07 and leaves out from 25.11 on.
add_flow_header() {
    [ -s "$(pkg-config --variable=includedir libdpdk)/rte_flow_driver.h" ] || driver_headers+=(rte_flow_driver.h)
}

# driver_headers_dir VERSION: where build.rs of hw-tests/nic-twin looks, unless DPDK_DRIVER_INCLUDE names another folder
driver_headers_dir() {
    echo "/usr/local/include/dpdk-driver-$1"
}

have_driver_headers() {
    local header
    for header in "${driver_headers[@]}"; do
        [ -s "$1/$header" ] || return 1
    done
}

# Lines of a sources.list for the source packages of this release, from the mirrors that the machine uses already.
source_mirrors() {
    local id codename keyring options=""
    # shellcheck disable=SC1091
    id=$(. /etc/os-release && echo "$ID")
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    keyring=/usr/share/keyrings/$id-archive-keyring.gpg
    [ ! -s "$keyring" ] || options=" [signed-by=$keyring]"
    # apt's own placeholders:
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" -v options="$options" \
            '$2 == codename || index($2, codename "-") == 1 { print "deb-src" options, $0 }' | sort -u
}

# fetch_source LIBRARY: into the folder that one is in, the source package of exactly the installed library, by lists of our own, so
# that the machine's configuration of apt stays as it is. Prints the archive of the project itself; the other one is Debian's packaging,
# which some mirrors lose and nobody here needs. apt has checked what it has left.
fetch_source() {
    local package archive options
    package=$(dpkg-query -W -f '${source:Package}=${source:Version}' "$1")
    mkdir -p lists/partial archives/partial
    source_mirrors >sources.list
    if [ ! -s sources.list ]; then
        echo "setup: apt has no list of this release's packages: run 'apt-get update', then this again" >&2
        return 1
    fi
    options=(
        -q
        -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$PWD/lists"
        -o Dir::Cache="$PWD" -o Dir::Cache::archives="$PWD/archives"
        -o APT::Sandbox::User=root      # the folder is root's alone
    )
    { apt-get "${options[@]}" update && apt-get "${options[@]}" source --download-only "$package"; } >log 2>&1 || true
    archive=$(find . -maxdepth 1 -name '*.orig.tar.*' ! -name '*.asc' | head -1)
    if [ -z "$archive" ]; then
        cat log >&2
        echo "setup: no source package $package: apt-get install $1 brings the release that the mirror has" >&2
        return 1
    fi
    echo "$archive"
}

# Where hw-tests/charon-plugin/build.sh looks for strongSwan's headers; the version as in the name of Debian's source archive.
strongswan_headers_dir() {
    echo "/usr/local/include/strongswan-$(dpkg-query -W -f '${source:Upstream-Version}' libstrongswan)"
}

# A plugin of charon is written against headers that are in strongSwan's source tree only. In a shell of its own.
install_strongswan_headers() (
    target=$(strongswan_headers_dir)
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: strongSwan's headers belong in $target, which needs root: run 'sudo make setup'" >&2
        exit 1
    fi
    echo "setup: fetching strongSwan's headers"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    archive=$(fetch_source libstrongswan)
    mkdir headers
    tar xf "$archive" -C headers --strip-components=2 --wildcards '*/src/libstrongswan/*.h' '*/src/libcharon/*.h'
    rm -rf "$target"
    install -d "$target"
    cp -r headers/libstrongswan headers/libcharon "$target"
    echo "setup: installed $target"
)

# install_driver_headers VERSION, in a shell of its own: of the source package of the installed libdpdk-dev, only the headers.
install_driver_headers() (
    package=$(dpkg-query -W -f '${source:Package}=${source:Version}' libdpdk-dev)
    target=$(driver_headers_dir "$1")
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: DPDK's driver headers belong in $target, which needs root: run 'sudo make setup'" >&2
        exit 1
    fi
    echo "setup: fetching the driver headers of $package"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    mkdir headers
    archive=$(fetch_source libdpdk-dev)
    tar tf "$archive" >members
    for header in "${driver_headers[@]}"; do
        member=$(grep "/$header\$" members | head -1 || true)
        if [ -z "$member" ]; then
            echo "setup: $package has no $header" >&2
            exit 1
        fi
        tar xf "$archive" -O "$member" >"headers/$header"
    done
    # They go with the installed library if a driver's translation unit compiles.
    # shellcheck disable=SC2046
    if ! printf '#include <%s>\n' ethdev_driver.h ethdev_vdev.h |
        cc -fsyntax-only -DALLOW_EXPERIMENTAL_API -DALLOW_INTERNAL_API $(pkg-config --cflags libdpdk) -Iheaders -x c -; then
        echo "setup: the driver headers of $package do not compile against the installed DPDK" >&2
        exit 1
    fi
    install -d "$target"
    install -m 644 headers/* "$target"
    echo "setup: installed $target"
)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ]; then
        apt-get update -q
    fi
    apt_install "${missing[@]}"
fi
version=$(pkg-config --modversion libdpdk)
add_flow_header
if [ ! -s "$(strongswan_headers_dir)/libcharon/daemon.h" ]; then
    install_strongswan_headers
fi
if ! have_driver_headers "$(driver_headers_dir "$version")"; then
    install_driver_headers "$version"
elif [ ${#missing[@]} -eq 0 ]; then
    echo "setup: everything is there"
fi
# The kernel that the tests boot, so that they need no network. The demo and the benchmarks do without.
if ! "$(dirname "$0")/vm/image.sh" --fetch; then
    echo "setup: without that kernel the tests with a virtual machine will fail" >&2
fi
