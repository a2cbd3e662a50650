#!/bin/bash
# Train with N workers on this machine, restarting the group when one of them dies.
# Usage: bash tools/launch_local_workers.sh [--workers=2] [--max_restarts=10]
#          [--log_dir=DIR] -- FLAGS of vit_scaling.train
#
# Each worker runs `python -m vit_scaling.train --distribution=multi_worker_mirrored` with
# a TF_CONFIG of its own on loopback. What they say lies side by side in
# DIR/worker_0.log, worker_1.log, … and comes to the screen as "[0] …", "[1] …".
#
# One worker dies: the others, which wait for it, are killed and all start again from the
# last checkpoint. SIGTERM or Ctrl-C goes to every worker: they save and leave, and so
# does this script, with their exit code 75. It ends with 0 when all workers did, and with
# a worker's own code where one failed once more than --max_restarts allows, or twice in a
# row without getting further than before.
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

pids=() asked_to_end=
say() { echo "launcher: $*" >&2; }

free_ports() { # Ports of a group that died may linger, so each group takes new ones.
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
  asked_to_end=1
  signal_group TERM
}
trap end_group TERM INT
trap 'signal_group KILL' EXIT

wait_for_group() { # Sets `code` to the first failure's, once no worker is left.
  local left=("${pids[@]}") status finished
  code=0
  while ((${#left[@]})); do
    status=0 finished=
    # Not bash's own lines on killed jobs: the launcher says it.
    wait -n -p finished "${left[@]}" 2>/dev/null || status=$?
    finished=${finished:-} # `wait` unsets it when a signal came.
    if [[ -z $finished ]]; then
      # A signal came, or workers ended together and `wait -n` has forgotten some.
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
      # 75: it has saved, as the others do. Else they wait for it in vain.
      ((code == 75)) || signal_group KILL
    fi
  done
}

# A log may be a moment behind its worker, which is waited for, but not for ever: a
# process that the worker left behind keeps its output open.
wait_for_log() {
  for ((i = 0; i < 50; i++)); do
    [[ ! -e $log_dir/.worker_0.closed ]] || break
    sleep 0.1
  done
}

# The furthest step that was told since this launcher began; steps done again after a
# restart are no progress.
furthest() {
  { tail -c +$((told + 1)) "$log_dir/worker_0.log" 2>/dev/null || true; } | tr -d ',' |
    awk '/^step / && $2 + 0 > most { most = $2 + 0 } END { print most + 0 }'
}

told=$({ cat "$log_dir/worker_0.log" 2>/dev/null || true; } | wc -c)
restarts=0 in_vain=0
say "$workers workers; logs in $log_dir"
while :; do
  before=$(furthest)
  start_group "$@"
  [[ -z $asked_to_end ]] || signal_group TERM # It came while there was no group.
  wait_for_group
  wait_for_log
  if ((code == 0 || code == 75)) || [[ -n $asked_to_end ]]; then
    exit "$code"
  fi
  [[ $(furthest) == "$before" ]] && in_vain=$((in_vain + 1)) || in_vain=0
  if ((restarts == max_restarts || in_vain == 2)); then
    say "a worker ended with code $code after $restarts restarts; see $log_dir"
    exit "$code"
  fi
  restarts=$((restarts + 1))
  say "a worker ended with code $code; restart $restarts of $max_restarts"
done
