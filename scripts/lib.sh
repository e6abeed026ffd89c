# Shared by the scripts of this folder; sourced, not run. Knows where the checkout is,
# builds binaries and tells where cargo put them.
# shellcheck shell=sh

# Variables that `make -j` leaves behind name file descriptors we do not have.
unset MAKEFLAGS MFLAGS

cd "$(dirname "$0")/.." || exit 1
# shellcheck disable=SC2034
ROOT=$(pwd)
CARGO=${CARGO:-cargo}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs cargo with the given arguments and prints the path of every binary it made, one a
# line, wherever target folder and target triple are configured.
cargo_binaries() {
    command -v "$CARGO" >/dev/null || die "cargo is missing: install Rust from https://rustup.rs"
    # A pipe would lose cargo's exit status.
    messages=$(mktemp)
    if "$CARGO" "$@" --message-format=json-render-diagnostics >"$messages"; then
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$messages"
        rm -f "$messages"
    else
        rm -f "$messages"
        return 1
    fi
}

# Picks the binary called $1 from the lines of $2.
pick() {
    printf '%s\n' "$2" | grep "/$1\$" || die "cargo did not build $1"
}
