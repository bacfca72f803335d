# Sourced by ../setup.sh: headers that no package carries, from the source packages of exactly the installed libraries.

headers_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# What a DPDK driver is written against is in DPDK's source tree, not in libdpdk-dev. The NIC twin is a driver.
driver_headers=(ethdev_driver.h ethdev_vdev.h bus_vdev_driver.h dev_driver.h bus_driver.h)

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

# source_mirrors [RELEASE]: lines of a sources.list for the source packages of this release, from the mirrors that the machine uses
# already; or those of another one, which a mirror of this one has too.
source_mirrors() {
    local id codename keyring options="" wanted=${1:-}
    # shellcheck disable=SC1091
    id=$(. /etc/os-release && echo "$ID")
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    keyring=/usr/share/keyrings/$id-archive-keyring.gpg
    [ ! -s "$keyring" ] || options=" [signed-by=$keyring]"
    # apt's own placeholders:
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" -v options="$options" -v wanted="$wanted" '
            wanted != "" && $2 == codename { $2 = wanted; print "deb-src" options, $0 }
            wanted == "" && ($2 == codename || index($2, codename "-") == 1) { print "deb-src" options, $0 }' | sort -u
}

# fetch_source SOURCE VERSION [RELEASE]: into the folder that one is in, that source package, by lists of our own, so that the machine's
# configuration of apt stays as it is; where the mirror has a newer one only, the newest. Prints the archive of the project itself;
# the other one is Debian's packaging, which some mirrors lose and nobody here needs. apt has checked what it has left.
fetch_source() {
    local package archive options
    mkdir -p lists/partial archives/partial
    source_mirrors "${3:-}" >sources.list
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
    apt-get "${options[@]}" update >log 2>&1 || true
    for package in "$1=$2" "$1"; do
        apt-get "${options[@]}" source --download-only "$package" >>log 2>&1 || true
        archive=$(find . -maxdepth 1 -name '*.orig.tar.*' ! -name '*.asc' | head -1)
        [ -z "$archive" ] || break
    done
    if [ -z "$archive" ]; then
        cat log >&2
        echo "setup: the mirrors of this machine have no source package $1 $2" >&2
        return 1
    fi
    echo "$archive"
}

# install_strongswan_headers VERSION, that of the binary package. A plugin of charon is written against headers that are in strongSwan's
# source tree only; hw-tests/charon-plugin/build.sh looks for them below target/tools. In a shell of its own.
install_strongswan_headers() (
    target=$tools/strongswan-headers-$1
    echo "setup: fetching strongSwan's headers"
    folder=$(mktemp -d "$tools/.new.XXXXXX")
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    archive=$(fetch_source strongswan "$1")
    mkdir headers
    tar xf "$archive" -C headers --strip-components=2 --wildcards '*/src/libstrongswan/*.h' '*/src/libcharon/*.h'
    rm -rf "$target"
    mv -T headers "$target"
)

# install_driver_headers VERSION, in a shell of its own: of the source package of the installed libdpdk-dev, only the headers. Some mirrors
# have a release's packages and not their sources: there the headers are those of 22.11 with driver-SERIES.sed applied.
install_driver_headers() (
    name=$(dpkg-query -W -f '${source:Package}' libdpdk-dev)
    source=$(dpkg-query -W -f '${source:Version}' libdpdk-dev)
    target=$(driver_headers_dir "$1")
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: DPDK's driver headers belong in $target, which needs root: run 'sudo make setup'" >&2
        exit 1
    fi
    echo "setup: fetching the driver headers of $name $source"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    cd "$folder"
    mkdir headers
    series=$(cut -d. -f1,2 <<<"$1")
    archive=$(fetch_source "$name" "$source" 2>refused) || archive=""
    origin=$series
    adapt=""
    if [ -z "$archive" ] && [ -s "$headers_folder/driver-$series.sed" ]; then
        echo "setup: the mirror has no source of $source: adapting the headers of 22.11"
        adapt=$headers_folder/driver-$series.sed
        origin=22.11
        rm -rf lists archives
        archive=$(fetch_source dpdk 22.11 bookworm)
    fi
    if [ -z "$archive" ]; then
        cat refused >&2
        exit 1
    fi
    # A release of the same series (22.11.7, 22.11.11) keeps the drivers' interface; another series does not.
    if [[ $archive != *_"$origin"[.~-]* && $archive != *_"$origin".orig* ]]; then
        echo "setup: libdpdk-dev is $1, and the mirrors have the source of $archive only:" >&2
        echo "setup: bring it to the release that they have (apt-get install libdpdk-dev), then run this again" >&2
        exit 1
    fi
    mkdir tree
    tar xf "$archive" -C tree --wildcards "${driver_headers[@]/#/*/}" || true
    for header in "${driver_headers[@]}"; do
        member=$(find tree -name "$header" -type f | sort | head -1)
        if [ -z "$member" ]; then
            echo "setup: $name $source has no $header" >&2
            exit 1
        fi
        cp "$member" "headers/$header"
    done
    [ -z "$adapt" ] || sed -i -f "$adapt" headers/ethdev_driver.h
    # They go with the installed library if a driver's translation unit compiles.
    # shellcheck disable=SC2046
    if ! printf '#include <%s>\n' ethdev_driver.h ethdev_vdev.h |
        cc -fsyntax-only -DALLOW_EXPERIMENTAL_API -DALLOW_INTERNAL_API $(pkg-config --cflags libdpdk) -Iheaders -x c -; then
        echo "setup: the driver headers of $name $source do not compile against the installed DPDK" >&2
        exit 1
    fi
    install -d "$target"
    install -m 644 headers/* "$target"
    echo "setup: installed $target"
)
