#!/bin/bash
# Check this package on a machine with a GPU: install, tests, speed, memory.
# Usage: bash tools/gpu_check.sh [--device=cpu] [OUTPUT_DIR]
#   --device=cpu      one tiny model on the CPU, to try the script itself
#   TORCH_PYTHON=…    also measures timm under torch.compile with this Python
#   TOPOLOGY=h100     also compiles B/16 by XLA's GPU compiler and compares the memory
set -euo pipefail
cd "$(dirname "$0")/.."

device=gpu
if [[ ${1:-} == --device=* ]]; then
  device=${1#--device=}
  shift
fi
output=$(realpath -m "${1:-gpu_check}")
venv=${VENV:-.venv-gpu}
extra=test,cuda
[[ $device == cpu ]] && extra=test
bash tools/make_venv.sh "$venv" "$extra"
export PATH="$(realpath "$venv")/bin:$PATH"
mkdir -p "$output"

vit-scaling doctor || [[ $device == cpu ]]
python -m pytest -q tests/modeling/vit_test.py tests/modeling/heads_test.py tests/conformance/optimizers_test.py \
  tests/training/step_test.py tests/runs_test.py | tee "$output/tests.txt"

arguments=(--device="$device" --output_dir="$output")
[[ $device == cpu ]] && arguments+=(--steps=3)
[[ -n ${TORCH_PYTHON:-} ]] && arguments+=(--torch_python="$TORCH_PYTHON")
if [[ -n ${TOPOLOGY:-} ]]; then
  vit-scaling preflight --gin_file=experiments/vit_b16.gin --gin_file=runtime/gpu.gin \
    --gin_param="CLASSES = 1000" --topology="$TOPOLOGY" --per_core_batch=64 --json >"$output/preflight.json"
  arguments+=(--preflight="$output/preflight.json")
fi
vit-scaling benchmark accelerator "${arguments[@]}"
echo "Written: $output/accelerator.json, $output/accelerator.md, $output/tests.txt"
