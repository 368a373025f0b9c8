#!/usr/bin/env bash
# All checks and all tests, from the format of the sources to a Redis Cluster that loses a host.
#
#   ./tests/run.sh                everything; ends with a summary and a verdict
#   ./tests/run.sh STEP...        only the steps whose title contains one of the words
#
# Works as root and as an ordinary user (user namespaces). Network tests live in namespaces of their own; this
# machine's network is not touched, and the last step checks that nothing was left behind.
#
# shellcheck disable=SC2317  # the steps are called by name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

# What computes is optimised a little, with debug assertions on (Cargo.toml). Everything is built and checked in this
# profile, so that there is one build.
PROFILE=lab
# Scenes kill it at every durable write. What is delivered is built without.
FEATURES=overlay-agent/fail-points
SUMMARY=()
FAILED=0
FILTER=("$@")

# --- steps -----------------------------------------------------------------------------------------------------------

scripts() { shellcheck --external-sources deploy/*.sh tests/*.sh .ci/run; }

format() { cargo fmt --all --check; }

lints() { cargo clippy --quiet --profile "$PROFILE" --workspace --all-targets --features "$FEATURES" -- --deny warnings; }

documentation() { RUSTDOCFLAGS='--deny warnings' cargo doc --quiet --profile "$PROFILE" --workspace --no-deps --document-private-items; }

# Who may import whom (tests/walls.txt). A package alone, with default features, has to do with what it declares.
walls() {
    local package bad=0
    for package in overlay-proto overlay overlay-dns overlay-gossip overlay-agent overlayctl overlay-tests; do
        cargo check --quiet --profile "$PROFILE" --package "$package" || bad=1
    done
    forbid overlay tokio rtnetlink 'netlink-.*' nix prost 'tonic.*' 'chitchat.*' 'hickory-.*' tracing rand getrandom || bad=1
    forbid overlay-proto overlay overlay-dns overlay-gossip overlay-agent overlay-tests || bad=1
    forbid overlay-dns overlay-proto overlay-agent overlay-gossip overlay-tests rtnetlink chitchat tonic || bad=1
    forbid overlay-agent overlay-tests || bad=1
    # overlayctl speaks to the daemon over the wire only.
    if grep -rnE '\b(overlay|overlay_agent|overlay_dns|chitchat|hickory_\w+|redb)::' agent/overlayctl/src; then
        echo "overlayctl may import overlay_proto only" >&2
        bad=1
    fi
    # Modules, as packages, have walls.
    ./tests/walls.sh || bad=1
    # Effects are in overlay/src/kernel only.
    if grep -rnE '\b(std::(fs|net|process|thread|time::(Instant|SystemTime))|tokio)::' overlay/src --include='*.rs' |
        grep -vE '^overlay/src/kernel(\.rs|/)|std::net::(\{|Ip|Ipv|Socket|AddrParse)|tests\.rs:'; then
        echo "overlay may have effects in kernel only" >&2
        bad=1
    fi
    return "$bad"
}

# forbid PACKAGE NAME...: fails if a dependency of the package (default features, not for tests) has one of the names.
forbid() {
    local package=$1 tree found
    shift
    tree=$(cargo tree --package "$package" --edges normal --prefix none --format '{p}' | tail -n +2 | cut -d' ' -f1 | sort -u)
    found=$(grep -xE "$(IFS='|'; echo "$*")" <<<"$tree") || return 0
    echo "$package must not depend on ${found//$'\n'/, }" >&2
    return 1
}

build() { cargo build --quiet --workspace --all-targets --profile "$PROFILE" --features "$FEATURES"; }

unit_tests() {
    tests --lib --bins --test program --test json
    tests --doc
}

conformance() { tests --test conformance; }

# Its larger sister, a million operations: tests/tests/simulation/main.rs.
simulation() { tests --test simulation; }

# Its larger sister, 500 agents for a quarter of an hour, is for machines that do nothing else: tests/tests/swarm/main.rs.
swarm() { tests --test swarm; }

# How long each scene took is in target/scenes.txt. The slowest are shown here.
scenes() {
    local report=${CARGO_TARGET_DIR:-target}/scenes.txt failed=0
    rm -f "$report"
    tests --test scenes || failed=1
    if [ -s "$report" ]; then
        printf '\n'
        head -n 16 "$report"
        echo "All of them are in $report."
    fi
    return "$failed"
}

# A test that hangs is one that fails: scenes and waits have bounds of their own, and this is for all of them together on
# a slow machine.
tests() { timeout --verbose 40m cargo test --quiet --workspace --profile "$PROFILE" --features "$FEATURES" "$@"; }

dependencies() {
    need_tool cargo-machete
    need_tool cargo-deny
    if ! cargo machete >"$LOG" 2>&1; then
        cat "$LOG" >&2
        return 1
    fi
    cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
    if timeout 120 cargo deny --log-level off fetch db 2>/dev/null; then
        cargo deny --log-level error check --hide-inclusion-graph --disable-fetch advisories
    else
        note "bans, licences and sources checked; advisories NOT: their database cannot be fetched from here"
    fi
}

# need_tool cargo-NAME: builds a subcommand of cargo that is not there.
need_tool() {
    if cargo "${1#cargo-}" --version >/dev/null 2>&1; then return 0; fi
    echo "$1 is not installed; building it from crates.io takes some minutes."
    cargo install --quiet --locked "$1"
}

# What the tests could have left on this machine. Processes are known by a mark in their environment.
leftovers() {
    local now processes
    now=$(traces)
    processes=$(marked)
    if [ "$now" = "$BEFORE" ] && [ -z "$processes" ]; then return 0; fi
    printf 'left behind:\n%s\n%s\n' "$(diff <(echo "$BEFORE") <(echo "$now") || true)" "$processes" >&2
    return 1
}

traces() {
    echo "namespaces: $(ip netns list 2>/dev/null | sort | tr '\n' ' ')"
    echo "links: $(ip -brief link | cut -d' ' -f1 | grep -E '^(ov|vx|port-)' | tr '\n' ' ')"
    echo "mounts: $(cut -d' ' -f2 /proc/self/mounts | sort | tr '\n' ' ')"
    echo "files: $(find /run /var/lib /etc/netns -maxdepth 1 \( -name 'overlay*' -o -name 'lab' \) 2>/dev/null | tr '\n' ' ')"
}

# Pids of the processes that were started under this run and live still.
marked() {
    local directory
    for directory in /proc/[0-9]*; do
        if tr '\0' '\n' 2>/dev/null <"$directory/environ" | grep -qxF "OVERLAY_TEST_RUN=$MARK"; then
            echo "${directory#/proc/} ($(tr '\0' ' ' <"$directory/cmdline" 2>/dev/null))"
        fi
    done
}

# --- how they are run ------------------------------------------------------------------------------------------------

step() {
    local title=$1 start=$SECONDS verdict=ok status word
    shift
    if [ ${#FILTER[@]} != 0 ]; then
        for word in "${FILTER[@]}"; do [[ $title != *$word* ]] || break; done
        [[ $title == *$word* ]] || return 0
    fi
    NOTE=''
    printf '\n=== %s\n' "$title"
    # Not as a condition: inside of one `set -e` is off.
    set +e
    (
        set -e
        OVERLAY_TEST_RUN=$MARK "$@"
    )
    status=$?
    set -e
    if [ $status != 0 ]; then verdict=FAILED FAILED=1; fi
    if [ -s "$NOTES" ]; then NOTE=" ($(cat "$NOTES"))" && : >"$NOTES"; fi
    SUMMARY+=("$(printf '%-8s %5d s  %s%s' "$verdict" $((SECONDS - start)) "$title" "$NOTE")")
}

# A word for the summary.
note() { echo "$*" | tee -a "$NOTES"; }

require_cargo
require_components clippy rustfmt
require_packages test
MARK=$$-$(date +%s)
NOTES=$(mktemp)
LOG=$(mktemp)
trap 'rm -f "$NOTES" "$LOG"' EXIT
BEFORE=$(traces)

step "scripts: shellcheck" scripts
step "format: cargo fmt" format
step "dependencies: cargo deny and cargo machete" dependencies
step "lints: clippy" lints
step "documentation: rustdoc" documentation
step "walls: who imports whom" walls
step "build" build
step "unit tests: laws and examples" unit_tests
step "conformance: the fake kernel and the real one" conformance
step "simulation: 50,000 operations on hosts that fail" simulation
step "swarm: agents come and go" swarm
step "scenes: three hosts and a Redis Cluster" scenes
step "nothing left behind" leftovers

printf '\n=== summary\n'
printf '%s\n' "${SUMMARY[@]}"
if [ $FAILED = 0 ]; then
    what='all of it'
    if [ ${#FILTER[@]} != 0 ]; then what="these steps only: ${FILTER[*]}"; fi
    printf '\nGREEN: %s, in %d min %d s.\n' "$what" $((SECONDS / 60)) $((SECONDS % 60))
else
    printf '\nRED: see FAILED above (%d min %d s).\n' $((SECONDS / 60)) $((SECONDS % 60))
fi
exit $FAILED
