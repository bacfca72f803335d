# Sourced by ../setup.sh: what apt would do, said before it is done. Uses $work, a folder that is removed at the end.

# preferences [keep [SOURCE...]]: how apt has to choose. The machine's own release comes before other archives (backports, the next release).
# keep: every installed package stays at its version, and what comes from the same source package is taken at that version too
# (libc6-dev goes with libc6, udev with libudev1), so that nothing is upgraded for it; but for these source packages.
preferences() {
    local codename suite
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ -n "$codename" ]; then
        for suite in "$codename" "$codename-updates" "$codename-security"; do
            printf 'Package: *\nPin: release n=%s\nPin-Priority: 990\n\n' "$suite"
        done
    fi
    cat /etc/apt/preferences 2>/dev/null || true
    [ "${1:-}" = keep ] || return 0
    echo
    dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}|${source:Package}|${source:Version}\n' | awk -F'|' -v free=" ${*:2} " '
        function pin(what, version) { printf "Package: %s\nPin: version %s\nPin-Priority: 1001\n\n", what, version }
        /^.i/ && !index(free, " " $4 " ") {
            pin($2, $3)
            # A rebuild for the archive has +bN behind the version of its source.
            if (!seen[$4]++) { pin("src:" $4, $5); pin("src:" $4, $5 "+b*") }
        }'
}

# apt_get PREFERENCES ARGUMENT...: with one of the two, in English, patient with another one that runs.
apt_get() {
    local chosen=$1
    shift
    LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -o Dir::Etc::preferences="$work/$chosen" -o APT::Sandbox::User=root \
        -o DPkg::Lock::Timeout=600 --no-install-recommends "$@"
}

# resolve PACKAGE...: sets $chosen to preferences with which all of them can be installed and nothing has to go; what apt would do is
# in $work/plan then, and why it cannot, otherwise. Where a package needs another version of what is installed, that one may move, and
# only that one; apt chooses freely when even so there is no solution.
resolve() {
    local name names source free=""
    preferences keep >"$work/keep"
    for _ in 1 2 3 4 5; do
        chosen=keep
        if apt_get keep install --simulate --no-remove "$@" >"$work/plan" 2>&1; then
            return 0
        fi
        # " libc6-dev : Depends: libc6 (= 2.36-9+deb12u14) but 2.36-9+deb12u10 is to be installed"
        names=$(sed -nE 's/.*Depends: ([^ :]+)(:[a-z0-9]+)? \(.* but .* is (to be )?installed$/\1/p' "$work/plan" | sort -u)
        source=""
        for name in $names; do
            source+=" $(dpkg-query -W -f '${source:Package}' "$name" 2>/dev/null || true)"
        done
        [ -n "${source// /}" ] && [[ "$free" != *"$source"* ]] || break
        free+=$source
        # shellcheck disable=SC2086
        preferences keep $free >"$work/keep"
    done
    chosen=newer
    apt_get newer install --simulate --no-remove "$@" >"$work/plan" 2>&1
}

# upgrades: what the plan replaces by a newer version, "libc6 2.36-9 -> 2.36-10"
upgrades() {
    awk '$1 == "Inst" && $3 ~ /^\[/ { print $2 " " substr($3, 2, length($3) - 2) " -> " substr($4, 2) }' "$work/plan"
}

# why_not PACKAGE: what stands in its way, and what to do
why_not() {
    local held
    if grep -qE 'Unable to locate package|has no installation candidate' "$work/plan"; then
        echo "no package source of this machine has it; the release's own archive does:"
        echo "add its component 'main' to /etc/apt/sources.list, run apt-get update, then this again"
        return
    fi
    if apt_get newer install --simulate "$1" >"$work/forced" 2>&1 && grep -q '^Remv' "$work/forced"; then
        echo "apt can install it only when these go, and nothing is removed for it: $(awk '$1 == "Remv" { printf "%s ", $2 }' "$work/forced")"
        echo "remove them yourself if you can do without (apt-get install $1), then run this again"
        return
    fi
    for held in $(apt-mark showhold 2>/dev/null); do
        if grep -qE "(^|[ :])$held([ :]|$)" "$work/plan"; then
            echo "$held is held back: 'apt-mark unhold $held' lets it follow its release"
        fi
    done
    sed -n '/unmet dependencies/,$p' "$work/plan" | grep -vE 'unmet dependencies|^E: (Unable to correct|Error, pkgProblem)' |
        sed 's/^ */  /' || true
    grep '^E: ' "$work/plan" | head -3 || true
    echo "these versions do not fit together: 'apt-cache policy NAME' says which archive each comes from"
}

# sizes: "PACKAGE OCTETS-TO-FETCH OCTETS-UNPACKED" of what a plan on standard input installs
sizes() {
    local packages
    awk '$1 == "Inst" { for (i = 3; i <= NF; i++) if ($i ~ /^\(/) { print $2 "=" substr($i, 2); break } }' >"$work/versions"
    mapfile -t packages <"$work/versions"
    [ ${#packages[@]} -gt 0 ] || return 0
    apt-cache show "${packages[@]}" | awk '
        /^Package: / { name = $2 }
        /^Installed-Size: / { unpacked = $2 * 1024 }
        /^Size: / { fetched = $2 }
        /^$/ { if (name != "" && !seen[name]++) print name, fetched, unpacked; name = ""; unpacked = 0 }
        END { if (name != "" && !seen[name]++) print name, fetched, unpacked }'
}

# say_sizes TITLE PACKAGE... : a table of the sizes on standard input: each of these packages, with what else comes for it and did not
# come for one above
say_sizes() {
    local title=$1
    shift
    printf '  %-36s %9s %10s  %s\n' "$title" download unpacked 'what for'
    apt-cache depends --recurse --important "$@" >"$work/graph"
    awk -v wanted="$*" -v purposes="$work/purposes" -v graph="$work/graph" '
        function row(name, fetched, unpacked, what) {
            printf "  %-36s %6.1f MB %7.1f MB  %s\n", name, fetched / 1e6, unpacked / 1e6, what
        }
        function take(name) {
            if (!(name in fetched) || taken[name]++) return
            queue[++last] = name
            sum += fetched[name]; sum_unpacked += unpacked[name]
        }
        BEGIN {
            while ((getline line < purposes) > 0) { split(line, field, "|"); purpose[field[1]] = field[2] }
            # "libc6-dev", then "  Depends: libc6", " |Depends: ..." with other choices, and who provides a name that stands for several
            while ((getline line < graph) > 0) {
                count = split(line, word, " ")
                name = word[count]
                gsub(/[<>]|:any$/, "", name)
                if (line !~ /^ /) from = name
                else if (count == 1 || word[1] ~ /Depends:$/) needs[from] = needs[from] " " name
            }
        }
        { fetched[$1] = $2; unpacked[$1] = $3; all += $2; all_unpacked += $3 }
        END {
            packages = split(wanted, order, " ")
            for (i = 1; i <= packages; i++) {
                if (!(order[i] in fetched)) continue
                sum = sum_unpacked = last = 0
                take(order[i])
                for (next_one = 1; next_one <= last; next_one++) {
                    count = split(needs[queue[next_one]], need, " ")
                    for (k = 1; k <= count; k++) take(need[k])
                }
                row(last > 1 ? order[i] " and " last - 1 " more" : order[i], sum, sum_unpacked, purpose[order[i]])
            }
            row("in all", all, all_unpacked, "")
        }'
}

# While a program of this set-up runs, a package that it installs starts no service: rdma-core, which DPDK wants, would. The file means
# nothing any more when this process has ended, however it ended. An administrator who has one of his own has decided otherwise.
policy=/usr/sbin/policy-rc.d
start_no_service() {
    [ ! -e $policy ] || grep -q 'sluicegate set-up' $policy || return 0
    cat >$policy <<POLICY
#!/bin/sh
# Of a sluicegate set-up, which removes it at its end.
[ -d /proc/$$ ] || exit 0
exit 101
POLICY
    chmod 755 $policy
}

forget_policy() {
    ! grep -qs 'sluicegate set-up' $policy || rm -f $policy
}

# install_packages PACKAGE...: as the plan says.
install_packages() {
    start_no_service
    if ! apt_get "$chosen" install --yes --no-remove "$@" >"$work/apt.log" 2>&1; then
        cat "$work/apt.log" >&2
        echo "setup: apt failed at what it had said it could do; its own words are above" >&2
        return 1
    fi
    forget_policy
}
