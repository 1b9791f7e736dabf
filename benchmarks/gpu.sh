#!/bin/sh
# Tests and measures torch_batch on an accelerator: benchmarks/gpu.sh [--smoke] [--json FILE].
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
. "$root/bin/_setup.sh"

install_full
cd "$root"
exec "$venv/bin/python" -m benchmarks.lib.engines.gpu "$@"
