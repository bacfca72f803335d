# Sourced by scripts that make a Debian in a folder.

# mirror_of SUITE: the mirror that this machine's apt has that suite from; nothing where it names none that debootstrap can use.
mirror_of() {
    # apt's own placeholders:
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        awk -v release="$1" '$2 == release && $1 ~ /^https?:/ && !found++ { sub("/$", "", $1); print $1 }' || true
}
