#!/usr/bin/env bash
# The main job, shown: a Redis Cluster of six on three hosts, over one overlay network, that survives losing a master
# and losing a host. All of it in namespaces: this machine's own network is not touched.
#
#   ./deploy/demo.sh          play it, end with a verdict
#   ./deploy/demo.sh --keep   play it, leave the hosts up, and say how to enter them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

require_cargo
require_packages run

echo "Building overlayd, overlayctl and the lab (the first time takes some minutes)."
quiet=--quiet
if [ -t 2 ]; then quiet=; fi
cargo build $quiet --profile lab --package overlay-agent --package overlayctl --package overlay-tests --bins
exec "${CARGO_TARGET_DIR:-target}/lab/overlay-demo" "$@"
