#!/bin/bash
# From nothing to predictions: digits → TFRecords → train → evaluate → export → predict.
# Usage: bash tools/quickstart.sh [DIR]     (default runs/quickstart; about 5 minutes)
set -euo pipefail

cd "$(dirname "$0")/.."
directory=$(realpath -m "${1:-runs/quickstart}")
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

bash tools/make_venv.sh "$directory/venv"
export PATH="$directory/venv/bin:$PATH"

echo "== 1. Handwritten digits (real images, nothing downloaded) to TFRecords"
for split in train test; do
  python tools/write_tfrecords.py --source=digits --split="$split" \
    --output_dir="$directory/digits" --num_shards=2
done

echo "== 2. Train, evaluating on the way"
gin_params=(
  --gin_param="TRAIN_PATTERN = '$directory/digits/train-*'"
  --gin_param="EVAL_PATTERN = '$directory/digits/test-*'"
)
python -m vit_scaling.train --gin_file=experiments/quickstart.gin \
  "${gin_params[@]}" --model_dir="$directory/model"

echo "== 3. Evaluate the last checkpoint"
python -m vit_scaling.train --gin_file="$directory/model/config.gin" \
  --model_dir="$directory/model" --mode=eval

echo "== 4. Export"
rm -rf "$directory/export" # A second run writes it anew.
python tools/export.py --model_dir="$directory/model" --output_dir="$directory/export"

echo "== 5. Predict ten held-out images with the export"
python tools/predict.py --saved_model="$directory/export" \
  --tfrecords="$directory/digits/test-*" --limit=10 --top=1

echo "== Done"
python - "$directory" <<'SUMMARY'
import json
import pathlib
import sys

directory = pathlib.Path(sys.argv[1])
lines = (directory / "model" / "metrics.jsonl").read_text().splitlines()
evaluated = [row for row in map(json.loads, lines) if row["kind"] == "eval"][-1]
print(f"Accuracy on {evaluated['examples']} held-out digits: {evaluated['top1']:.2%}")
print(f"Images:      {directory / 'digits'}")
print(f"Run:         {directory / 'model'}  (tensorboard --logdir=…)")
print(f"SavedModel:  {directory / 'export'}")
SUMMARY
