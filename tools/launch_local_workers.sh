#!/bin/bash
# Train with N workers on this machine, restarting the group when one of them dies.
# Usage: bash tools/launch_local_workers.sh [--workers=2] [--max_restarts=10]
#          [--log_dir=DIR] -- FLAGS of vit_scaling.train
#
# Each worker runs `python -m vit_scaling.train --distribution=multi_worker_mirrored` with
# its own TF_CONFIG on loopback. Their output goes to DIR/worker_0.log, worker_1.log, …
# and to the screen with the prefixes "[0] ", "[1] ", …
#
# If a worker dies, the others, which wait for it, are killed and all restart from the
# last checkpoint. SIGTERM and Ctrl-C are sent to every worker: they save and exit, and so
# does this script, with their exit code 75. The exit code is 0 if all workers succeed,
# and a failed worker's code after --max_restarts restarts or after two restarts in a row
# without progress.
set -euo pipefail

workers=2 max_restarts=10 log_dir=
while (($#)); do
  case $1 in
    --workers=*) workers=${1#*=} ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --log_dir=*) log_dir=${1#*=} ;;
    --)
      shift
      break
      ;;
    *)
      sed -n '2,4s/^# \{0,1\}//p' "$0" >&2
      echo "unknown argument: $1 (flags of vit_scaling.train come after --)" >&2
      exit 2
      ;;
  esac
  shift
done
if ! [[ $workers =~ ^[1-9][0-9]*$ && $max_restarts =~ ^[0-9]+$ ]]; then
  echo "--workers and --max_restarts must be whole numbers; received $workers," \
    "$max_restarts." >&2
  exit 2
fi
log_dir=${log_dir:-$(mktemp -d -t workers.XXXXXX)}
mkdir -p "$log_dir"
export PYTHONPATH="$(realpath "$(dirname "$0")/..")${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

pids=() is_stopping=
say() { echo "launcher: $*" >&2; }

free_ports() { # A dead group's ports may linger, so each group takes new ones.
  python - "$workers" <<'PORTS'
import socket
import sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PORTS
}

start_group() {
  local ports hosts
  read -ra ports <<<"$(free_ports)"
  hosts=$(printf ',"127.0.0.1:%s"' "${ports[@]}")
  pids=()
  rm -f "$log_dir"/.worker_*.closed
  for ((i = 0; i < workers; i++)); do
    TF_CONFIG="{\"cluster\":{\"worker\":[${hosts:1}]},\"task\":{\"type\":\"worker\",\"index\":$i}}" \
      python -m vit_scaling.train --distribution=multi_worker_mirrored "$@" \
      > >(trap '' INT && tee -a "$log_dir/worker_$i.log" | sed -u "s/^/[$i] /"
        touch "$log_dir/.worker_$i.closed") 2>&1 &
    pids+=($!)
  done
}

signal_group() { kill "-$1" "${pids[@]}" 2>/dev/null || true; }

end_group() {
  is_stopping=1
  signal_group TERM
}
trap end_group TERM INT
trap 'signal_group KILL' EXIT

wait_for_group() { # Sets `code` to the first failure's, once no worker is left.
  local left=("${pids[@]}") status finished
  code=0
  while ((${#left[@]})); do
    status=0 finished=
    # Hide bash's own messages on killed jobs: the launcher reports them.
    wait -n -p finished "${left[@]}" 2>/dev/null || status=$?
    finished=${finished:-} # `wait` unsets it when a signal came.
    if [[ -z $finished ]]; then
      # A signal came, or several workers ended together and `wait -n` missed some.
      for i in "${left[@]}"; do
        kill -0 "$i" 2>/dev/null || { finished=$i && break; }
      done
      [[ -n $finished ]] || continue
      status=0
      wait "$finished" 2>/dev/null || status=$?
    fi
    for i in "${!left[@]}"; do
      [[ ${left[i]} != "$finished" ]] || unset "left[i]"
    done
    left=("${left[@]}")
    if ((status && !code)); then
      code=$status
      # 75: it has saved, as the others do. After other codes they would wait forever.
      ((code == 75)) || signal_group KILL
    fi
  done
}

# A log may lag behind its worker. The wait is bounded, because a process that the worker
# left behind keeps the log open.
wait_for_log() {
  for ((i = 0; i < 50; i++)); do
    [[ ! -e $log_dir/.worker_0.closed ]] || break
    sleep 0.1
  done
}

# The highest step logged since this launcher started; repeating steps after a restart is
# no progress.
highest_step() {
  { tail -c +$((log_offset + 1)) "$log_dir/worker_0.log" 2>/dev/null || true; } | tr -d ',' |
    awk '/^step / && $2 + 0 > most { most = $2 + 0 } END { print most + 0 }'
}

log_offset=$({ cat "$log_dir/worker_0.log" 2>/dev/null || true; } | wc -c)
restarts=0 without_progress=0
say "$workers workers; logs in $log_dir"
while :; do
  before=$(highest_step)
  start_group "$@"
  [[ -z $is_stopping ]] || signal_group TERM # The signal came between two groups.
  wait_for_group
  wait_for_log
  if ((code == 0 || code == 75)) || [[ -n $is_stopping ]]; then
    exit "$code"
  fi
  if [[ $(highest_step) == "$before" ]]; then
    without_progress=$((without_progress + 1))
  else
    without_progress=0
  fi
  if ((restarts == max_restarts || without_progress == 2)); then
    say "a worker ended with code $code after $restarts restarts; see $log_dir"
    exit "$code"
  fi
  restarts=$((restarts + 1))
  say "a worker ended with code $code; restart $restarts of $max_restarts"
done
