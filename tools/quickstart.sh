#!/bin/bash
# From nothing to predictions: digits → TFRecords → train → evaluate → export → predict.
# Usage: bash tools/quickstart.sh [DIR]     (default runs/quickstart; about 5 minutes)
set -euo pipefail

cd "$(dirname "$0")/.."
directory=$(realpath -m "${1:-runs/quickstart}")
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

bash tools/make_venv.sh "$directory/venv"
export PATH="$directory/venv/bin:$PATH"
