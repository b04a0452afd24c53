# Helpers that the scripts of this folder share. Sourced, never run: `. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"`.
# Every script that sources it runs under `set -euo pipefail`.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo
# Everything that the scripts build or fetch lands here, inside the checkout (or where cargo was told to build).
readonly target=${CARGO_TARGET_DIR:-$repo/target}

# sudo resets the PATH: cargo is looked for where rustup puts it, in the caller's home, and told of its toolchains there.
if ! command -v cargo >/dev/null 2>&1; then
    for home in "${HOME:-}" "$(getent passwd "${SUDO_USER:-}" | cut -d: -f6)"; do
        if [[ -n $home && -x $home/.cargo/bin/cargo ]]; then
            PATH=$PATH:$home/.cargo/bin
            export PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
            break
        fi
    done
    unset home
fi

# Progress and complaints go to standard error; standard output belongs to the result.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# fail MESSAGE: says what failed and what to do, and ends with 1.
fail() {
    say "error: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

is_root() { [[ $(id -u) -eq 0 ]]; }

# usage FILE: prints the comment at the head of a script, which is its help.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$1"; }

# Leaves a release build of beam in $BEAM_BIN, exported, unless that names one already.
release_beam() {
    if [[ -n ${BEAM_BIN:-} ]]; then
        # A report must not name the checkout's commit for a binary that came from elsewhere.
        export BEAM_FOREIGN=1
    else
        say "building beam (release)"
        (cd "$repo" && cargo build --release --locked --package beam >&2)
        BEAM_BIN=$target/release/beam
    fi
    export BEAM_BIN
}
