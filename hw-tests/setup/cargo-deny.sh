#!/usr/bin/env bash
# Installs cargo-deny, which `make lint` runs, into cargo's folder of programs. Built without what makes a program fast: two minutes
# on two cores in place of four, and it runs for half a second.
set -euo pipefail
version=0.20.2
echo "setup: building cargo-deny $version (licences, sources and advisories of the dependencies): about two minutes"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# Elsewhere than in the workspace: its own lock file and settings are not cargo-deny's.
cd "$folder"
if ! CARGO_TARGET_DIR=$folder cargo install --quiet --locked cargo-deny --version "$version"; then
    echo "setup: cargo-deny did not build; cargo's own words are above. It needs the registry once; then: make lint" >&2
    exit 1
fi
