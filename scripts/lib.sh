# Helpers that the scripts of this folder share. Sourced, never run: `. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"`.
# Every script that sources it runs under `set -euo pipefail`.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly repo
# Everything that the scripts build or fetch lands here, inside the checkout (or where cargo was told to build).
readonly target=${CARGO_TARGET_DIR:-$repo/target}

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
