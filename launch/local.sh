#!/usr/bin/env bash
# Simulates a pod on one machine: N processes that communicate over loopback.
# Use it to test multi-process runs without a cluster.
#
#   launch/local.sh [--dry-run] N --config FILE.py --workdir DIR [--config.x=...]
#
# DEVICES   simulated devices of each process (default 1)
# RESTARTS  maximum restarts after a failure or preemption (default 0)
# PORT      of the coordinator; PORT - 1 is also used (default: a free pair)
# PYTHON    default python
#
# On Ctrl-C or SIGTERM all processes save and stop at the same step (exit code
# 75). Only the workdir remains.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
[[ "${1:-}" =~ ^[1-9][0-9]*$ && $# -gt 1 ]] || usage
processes="$1"
shift
python="${PYTHON:-python}"
numbers RESTARTS
restarts="${RESTARTS:-0}"

free_port() {
  "$python" -c 'import socket
while True:
  with socket.socket() as upper, socket.socket() as lower:
    upper.bind(("127.0.0.1", 0))
    port = upper.getsockname()[1]
    try:
      lower.bind(("127.0.0.1", port - 1))
    except OSError:
      continue
    print(port)
    break'
}

# start INDEX: replaces the shell by process INDEX.
start() {
  local command=(
    env
    "JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}"
    "FUSAR_COORDINATOR=127.0.0.1:$port"
    "FUSAR_PROCESSES=$processes"
    "FUSAR_PROCESS=$1"
    "FUSAR_LOCAL_DEVICES=${DEVICES:-1}"
    "$python" -u -m fusar_jax.train "${@:2}" "--preempted_exit=$PREEMPTED"
  )
  if [[ -n "$DRY_RUN" ]]; then
    execute "${command[@]}"
    return
  fi
  # A device count in it would contradict FUSAR_LOCAL_DEVICES.
  unset XLA_FLAGS
  exec "${command[@]}"
}

stopping=''
children=()
# Signals all processes, like a preemption of all machines.
stop() {
  HEARD=1
  stopping=1
  kill -TERM "${children[@]}" 2>/dev/null || true
}

# run ARGUMENTS: runs all processes once. Returns the worst of their exit codes:
# a failure before a lost peer before a preemption before 0.
run() {
  local index child worst=0
  children=()
  for ((index = 0; index < processes; index++)); do
    (start "$index" "$@") > >(sed -u "s/^/[$index] /") 2>&1 &
    children+=("$!")
  done
  trap stop TERM INT
  for child in "${children[@]}"; do
    await "$child"
    worst="$(worst <<<"$worst"$'\n'"$CODE")"
  done
  return "$worst"
}

port="${PORT:-}"
if [[ -n "$DRY_RUN" ]]; then
  port="${port:-FREE_PORT}"
  for ((index = 0; index < processes; index++)); do
    start "$index" "$@"
  done
  exit
fi

while true; do
  port="${PORT:-$(free_port)}"
  code=0
  run "$@" || code=$?
  if ((code == 0 || restarts == 0)) || [[ -n "$stopping" ]]; then
    exit "$code"
  fi
  restarts=$((restarts - 1))
  echo "local.sh: exit code $code; the run resumes from its workdir" \
    "($restarts restarts left)." >&2
done
