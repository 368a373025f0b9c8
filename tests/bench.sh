#!/usr/bin/env bash
# What the overlay costs beside the bare underlay, and how long things take: a table in Markdown, in under 4 minutes.
# No test passes or fails by it; run it on a machine that does nothing else.
#
#   ./tests/bench.sh                        measure everything but growth, which takes 5 minutes more
#   ./tests/bench.sh throughput redis       only these: throughput redis dns attach crash idle growth
#   ./tests/bench.sh --rounds 9 --seed 7    more rounds, and the turns of an earlier run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

require_cargo
require_packages bench >&2

echo "Building overlayd, overlayctl and the lab as they are released (the first time takes some minutes)." >&2
cargo build --quiet --release --package overlay-agent --package overlayctl --package overlay-tests --bins
exec "${CARGO_TARGET_DIR:-target}/release/overlay-bench" "$@"
