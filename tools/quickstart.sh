#!/bin/bash
# From nothing to predictions: digits → TFRecords → train → evaluate → export → predict.
# Usage: bash tools/quickstart.sh [DIR]     (default runs/quickstart)
#
# A second start resumes: environment, data and a finished training are reused.
set -euo pipefail

cd "$(dirname "$0")/.."
directory=$(realpath -m "${1:-runs/quickstart}")

bash tools/make_venv.sh "$directory/venv"
export PATH="$directory/venv/bin:$PATH"
cd "$directory"

echo "== Handwritten digits to TFRecords: every fifth one is held out"
for split in train test; do
  [[ -f digits/$split.manifest.json ]] ||
    vit-scaling data write --source=digits --split="$split" --num_shards=2 \
      --output_dir=digits
done

run=(
  --gin_file=experiments/quickstart.gin
  "--gin_param=TRAIN_PATTERN = '$directory/digits/train-*.tfrecord'"
  "--gin_param=EVAL_PATTERN = '$directory/digits/test-*.tfrecord'"
  --model_dir="$directory/model"
)

echo "== Train a Vision Transformer with a MAP head; evaluate it on the held-out digits"
vit-scaling train "${run[@]}"

echo "== Export it"
rm -rf export
vit-scaling export --model_dir=model --output_dir=export

echo "== Predict ten held-out digits with the export"
vit-scaling predict --saved_model=export --tfrecords='digits/test-*.tfrecord' --limit=10 \
  --top=1

python - "$directory" <<'SUMMARY'
import json
import pathlib
import sys

directory = pathlib.Path(sys.argv[1])
lines = (directory / "model" / "metrics.jsonl").read_text().splitlines()
last = [row for row in map(json.loads, lines) if row["kind"] == "eval"][-1]
print(f"""
== Summary
held-out accuracy  {last['top1']:.2%} of {last['examples']} digits, step {last['step']}
training run       {directory / 'model'}     (tensorboard --logdir=…)
exported model     {directory / 'export'}
digits             {directory / 'digits'}""")
SUMMARY
