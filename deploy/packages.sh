# shellcheck shell=bash
# Sourced by deploy/demo.sh, tests/run.sh and tests/bench.sh: makes sure that the programs of deploy/packages.txt are there.

# An ordinary user's PATH on Debian lacks the directories that ip and nft are in.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# require_packages run|test|bench: installs what is missing if we are root, or says what to install, and fails.
# `test` and `bench` include `run`.
require_packages() {
    local wanted=$1 list package program use why
    local -a missing=()
    list="$(dirname "${BASH_SOURCE[0]}")/packages.txt"
    while read -r package program use why; do
        case $package in '' | '#'*) continue ;; esac
        if [ "$use" != run ] && [ "$use" != "$wanted" ]; then continue; fi
        if is_there "$package" "$program"; then continue; fi
        if [ ${#missing[@]} = 0 ]; then echo "These Debian packages are missing:"; fi
        printf '  %-16s %s\n' "$package" "$why"
        missing+=("$package")
    done <"$list"
    if [ ${#missing[@]} = 0 ]; then return 0; fi

    if [ "$(id -u)" != 0 ]; then
        echo "Only root can install them: sudo apt-get install ${missing[*]}" >&2
        return 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "This is no Debian: install what has these programs by the means of your system." >&2
        return 1
    fi
    echo "Installing them."
    install_quietly "${missing[@]}"
}

# A package counts as there if its program is, however it was installed; one without a program, if dpkg knows it
# or there is no dpkg to ask.
is_there() {
    if [ "$2" != - ]; then
        command -v "$2" >/dev/null
    elif command -v dpkg-query >/dev/null; then
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
    fi
}

# Installs packages without letting any of them start a service: redis-server would take port 6379 of this machine.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d made='' status=0
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        made=$policy
    fi
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null; } ||
        status=$?
    if [ -n "$made" ]; then rm -f "$made"; fi
    return $status
}

# require_cargo: fails with a clear line if there is no Rust toolchain, or an old one.
require_cargo() {
    local there wanted
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null; then
        echo "There is no \`cargo\`: install a Rust toolchain first, see https://rustup.rs" >&2
        return 1
    fi
    there=$(cargo --version | cut -d' ' -f2)
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if [ "$(printf '%s\n' "$wanted" "$there" | sort -V | head -n 1)" != "$wanted" ]; then
        echo "This Rust is $there, and $wanted or newer is needed: \`rustup update\`, see https://rustup.rs" >&2
        return 1
    fi
}

# require_components COMPONENT...: fails with a clear line if the Rust toolchain lacks one of them.
require_components() {
    local component
    for component in "$@"; do
        if cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1; then continue; fi
        echo "The Rust toolchain has no $component: \`rustup component add $component\`" >&2
        return 1
    done
}
