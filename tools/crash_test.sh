#!/bin/bash
# Kill a training run at random moments, restart it, and compare the weights bit by bit.
# Usage: bash tools/crash_test.sh [KILLS [DIR [SEED]]]     (default 50, a new folder, 0)
#
# A small ViT with dropout and averaged weights trains on scikit-learn's digits, once
# undisturbed, then under `kill -9`: half of the kills on one device, half on two virtual
# devices. One kill in four comes while TensorFlow loads, the others after a random number
# of further steps. Writing a checkpoint takes so little time that random kills would
# rarely hit it: one kill in five therefore waits until the next checkpoint is being
# written. Whenever the run reaches its end, its last checkpoint (weights, optimizer,
# averages, counters) and its losses must equal those of the undisturbed run; then it
# restarts from nothing until all kills are done. Started again with the same DIR, the
# test continues counting.
set -euo pipefail

kills=${1:-50}
directory=$(realpath -m "${2:-$(mktemp -d -t crash_test.XXXXXX)}")
root=$(realpath "$(dirname "$0")/..")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
mkdir -p "$directory"
cd "$directory"
RANDOM=$((${3:-0} + $({ cat ./*.kills 2>/dev/null || true; } | wc -l))) # Other moments after a restart.

for split in train test; do
  [[ -f digits/$split.manifest.json ]] ||
    python "$root/tools/write_tfrecords.py" --source=digits --split="$split" \
      --num_shards=2 --output_dir=digits >&2
done

cat >run.gin <<GIN
include 'experiments/quickstart.gin'
digits/ViTShape.width = 16
digits/ViTShape.mlp_width = 32
digits/ViTShape.heads = 2
digits/ViTShape.depth = 1
vit.dropout = 0.1
AVERAGE_DECAY = 0.99
TRAIN_PATTERN = '$directory/digits/train-*'
EVAL_PATTERN = '$directory/digits/test-*'
SHUFFLE_WINDOW = 256
BATCH_SIZE = 8
TOTAL_STEPS = 600
WARMUP_STEPS = 50
COOLDOWN_STEPS = 200
STEPS_PER_LOOP = 5
CHECKPOINT_EVERY = 10
EVAL_EVERY = None
GIN

start() { # start MODEL_DIR FLAG…: sets `pid`
  local model_dir=$1
  shift
  python -m vit_scaling.train --gin_file=run.gin --mode=train --model_dir="$model_dir" \
    "$@" >>"$model_dir.log" 2>&1 &
  pid=$!
}

now() { date +%s%N; }

compare() { # compare UNDISTURBED KILLED: fails at the first difference
  python - "$1" "$2" <<'COMPARE'
import sys

from vit_scaling.training.checkpoint_files import (
    checkpoint_folder,
    read_checkpoint,
    saved_steps,
)
from vit_scaling.training.logs import read_metrics


def end_state(run):
    """Return the last step, its images and bits, and all logged losses."""
    step = saved_steps(f"{run}/checkpoints")[-1]
    values, manifest = read_checkpoint(checkpoint_folder(f"{run}/checkpoints", step))
    bits = {key: (v.dtype, v.shape, v.tobytes()) for key, v in values.items()}
    losses = {row["step"]: row["loss"] for row in read_metrics(run, "train")}
    return step, manifest["state"]["images_seen"], bits, losses


(step, images, bits, losses), killed = end_state(sys.argv[1]), end_state(sys.argv[2])
if (step, images) != killed[:2]:
    sys.exit(f"ended at {killed[:2]}, not at {(step, images)}")
if set(bits) != set(killed[2]):
    sys.exit(f"different variables: {set(bits) ^ set(killed[2])}")
differ = [key for key in bits if bits[key] != killed[2][key]]
if differ:
    sys.exit(f"{len(differ)} of {len(bits)} variables differ, such as {differ[0]}")
if losses != killed[3]:
    sys.exit("logged losses differ")
print(f"  equal at step {step}: {len(bits)} variables, {len(losses)} losses")
COMPARE
}

run_undisturbed() { # run_undisturbed NAME FLAG…; writes its duration to NAME.ns
  local name=$1 started first=
  shift
  echo "== $name: an undisturbed run"
  rm -rf "$name"-*
  started=$(now)
  start "$name-undisturbed" "$@"
  while kill -0 "$pid" 2>/dev/null; do
    [[ -n $first ]] || ! grep -qs '^step' "$name-undisturbed.log" || first=$(($(now) - started))
    sleep 0.05
  done
  wait "$pid" || { tail -5 "$name-undisturbed.log" && exit 1; }
  echo "$first $(($(now) - started))" >"$name.ns"
}

random_between() { # random_between FROM TO
  echo $(($1 + (RANDOM * 32768 + RANDOM) * ($2 - $1) / 1073741824))
}

pause() { # pause MICROSECONDS
  sleep "$(printf '%d.%06d' $(($1 / 1000000)) $(($1 % 1000000)))"
}

run_and_kill() { # run_and_kill NAME FLAG…: NAME.kills records when it was killed
  local run=$1-killed name=$1 reached number first length
  shift
  read -r first length <"$name.ns"
  reached=$(count '^step' "$run.log")
  number=$(count . "$name.kills")
  touch "$name.started" # Partial checkpoints of earlier attempts are older.
  start "$run" "$@"
  if ((number % 4 == 1)); then # In the second half of loading.
    pause "$(random_between $((first / 2000)) $((first / 1000)))"
  else # Counted in log lines: the machine's speed varies.
    number=$((reached + 1 + RANDOM % $(count '^step' "$name-undisturbed.log")))
    until (($(count '^step' "$run.log") >= number)) || ! kill -0 "$pid" 2>/dev/null; do
      sleep 0.02
    done
    pause "$(random_between 0 100000)"
  fi
  if (($(count . "$name.kills") % 5 == 0)); then
    until is_writing "$name" || ! kill -0 "$pid" 2>/dev/null; do sleep 0.001; done
  fi
  if ! kill -9 "$pid" 2>/dev/null; then
    check_end "$name"
    rm -rf "$run" "$run.log"
    return
  fi
  wait "$pid" 2>/dev/null || true
  if is_writing "$name"; then
    echo writing
  elif [[ $(count '^step' "$run.log") == "$reached" ]]; then
    echo loading
  else
    echo training
  fi >>"$name.kills"
}

is_writing() { # is_writing NAME: a checkpoint of this attempt is being written
  local folder
  for folder in "$1-killed"/checkpoints/.writing_*; do
    [[ $folder -nt $1.started ]] && return
  done
  return 1
}

check_end() { # check_end NAME: the run has ended by itself; compare
  wait "$pid" || { tail -5 "$1-killed.log" && exit 1; }
  compare "$1-undisturbed" "$1-killed"
  echo end >>"$1.ends"
}

count() { { cat "$2" 2>/dev/null || true; } | grep -c "$1" || true; }

under_kills() { # under_kills NAME NUMBER FLAG…
  local name=$1 number=$2 first length
  shift 2
  [[ -f $name.ns ]] || run_undisturbed "$name" "$@"
  read -r first length <"$name.ns"
  echo "== $name: $number kills; an attempt takes $((length / 1000000)) ms," \
    "$((first / 1000000)) of them before the first steps"
  while (($(count . "$name.kills") < number)); do run_and_kill "$name" "$@"; done
  start "$name-killed" "$@"
  check_end "$name"
  echo "  killed $(count loading "$name.kills") times while loading," \
    "$(count training "$name.kills") while training," \
    "$(count writing "$name.kills") while writing a checkpoint;" \
    "$(count end "$name.ends") runs reached their end, all equal"
}

trap 'kill -9 "${pid:-}" 2>/dev/null || true' EXIT
under_kills one_device $((kills - kills / 2))
under_kills two_devices $((kills / 2)) --distribution=mirrored --num_virtual_devices=2
echo "== $kills kills in $directory: every run ended in the undisturbed run's weights"
