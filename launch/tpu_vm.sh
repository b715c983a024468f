#!/usr/bin/env bash
# A slice of Cloud TPU as a queued resource: one process per host.
#
#   launch/tpu_vm.sh [--dry-run] create | setup | stop | delete | list | state
#   launch/tpu_vm.sh [--dry-run] logs [WORKER]
#   launch/tpu_vm.sh [--dry-run] run   ARGUMENTS OF fusar_jax.train
#   launch/tpu_vm.sh [--dry-run] watch ARGUMENTS OF fusar_jax.train
#
# `run` starts the command on all workers and returns. `watch` does everything:
# it creates the slice if there is none, sets it up, runs, and when the slice is
# preempted deletes what is left of it, queues again, and runs the same command,
# which resumes from its workdir. It ends with the run.
#
# To be given (environment):
#   PROJECT, ZONE  of Google Cloud
#   NAME           of the slice
#   TYPE           accelerator type, e.g. v5litepod-16, v5p-32, v6e-16 (create)
#   WORKDIR        gs://BUCKET/PATH of the run (setup, run, watch)
# May be given:
#   CAPACITY       spot (default), on-demand, or the name of a reservation
#   RUNTIME        software version; default: the one for TYPE
#   RESTARTS       of a run that fails while its slice is well (default 3)
#   SECONDS_APART  between two looks of `watch` (default 60)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

MOUNT=bucket # In the checkout of each worker, where the command runs.
PREEMPTED=75

if [[ "${1:-}" == --dry-run ]]; then
  DRY_RUN=1
  shift
fi
(($# > 0)) || usage
what="$1"
shift
: "${PROJECT:?the Google Cloud project, e.g. PROJECT=my-project}"
: "${ZONE:?the zone, e.g. ZONE=us-west4-a}"
place=(--project="$PROJECT" --zone="$ZONE")
if [[ "$what" != list ]]; then
  : "${NAME:?a name for the slice, e.g. NAME=fusar-0}"
fi

tpus() {
  execute gcloud compute tpus "$1" "$2" "${@:3}" "${place[@]}"
}

on_all() {
  tpus tpu-vm ssh "$NAME" --worker=all --command="$1"
}

# https://cloud.google.com/tpu/docs/runtimes
runtime() {
  case "$TYPE" in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *)
      echo "TYPE=$TYPE: no runtime is known for it; give RUNTIME." >&2
      return 2
      ;;
  esac
}

create() {
  : "${TYPE:?an accelerator type, e.g. TYPE=v5litepod-16}"
  local version capacity
  version="${RUNTIME:-$(runtime)}"
  case "${CAPACITY:-spot}" in
    spot) capacity=(--spot) ;;
    on-demand) capacity=() ;;
    *) capacity=(--reservation="$CAPACITY") ;;
  esac
  tpus queued-resources create "$NAME" --node-id="$NAME" \
    --accelerator-type="$TYPE" --runtime-version="$version" \
    --scopes=https://www.googleapis.com/auth/cloud-platform \
    ${capacity[@]+"${capacity[@]}"}
}

# Of the queued resource: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, FAILED,
# SUSPENDING, SUSPENDED; nothing where there is none.
state() {
  tpus queued-resources list --filter="name~/$NAME\$" \
    --format='value(state.state)'
}

delete() {
  tpus queued-resources delete "$NAME" --force --quiet
}

setup() {
  local archive=fusar_jax.tar
  : "${WORKDIR:?the run, e.g. WORKDIR=gs://my-bucket/runs/stage1}"
  execute git --git-dir="$(dirname "$0")/../.git" archive --format=tar \
    --prefix=fusar_jax/ --output="$archive" HEAD &&
    tpus tpu-vm scp "$archive" "$NAME:" --worker=all &&
    execute rm "$archive" &&
    on_all "tar -xf $archive" &&
    on_all "fusar_jax/launch/worker.sh setup $(bucket "$WORKDIR")"
}

run() {
  local command workdir
  (($# > 0)) || usage
  : "${WORKDIR:?the run, e.g. WORKDIR=gs://my-bucket/runs/stage1}"
  workdir="$(mounted "$WORKDIR")"
  command="$(quoted venv/bin/python -u -m fusar_jax.train "$@" \
    --workdir="$workdir" --preempted_exit="$PREEMPTED")"
  on_all "fusar_jax/launch/worker.sh run $command"
}

# All processes save, and stop at one step.
stop() {
  on_all 'fusar_jax/launch/worker.sh stop'
}

logs() {
  tpus tpu-vm ssh "$NAME" --worker="${1:-0}" --command='tail -n +1 -F fusar_jax/run/log'
}

# Exit codes of all workers, one a line, or "running".
codes() {
  on_all 'fusar_jax/launch/worker.sh code'
}

# worst CODES: a failure before a preemption before 0; nothing while one runs.
worst() {
  [[ "$1" != *running* ]] || return 0
  awk -v preempted="$PREEMPTED" '
    $1 != 0 && (worst == 0 || worst == preempted) { worst = $1 }
    END { print worst + 0 }' <<<"$1"
}

watch() {
  local restarts="${RESTARTS:-3}" begun='' now code
  if [[ -n "$DRY_RUN" ]]; then
    state
    echo '# none:' && create
    echo '# ACTIVE:' && setup && run "$@"
    echo '# ACTIVE, and begun:' && codes
    echo '# SUSPENDED or FAILED:' && delete
    echo '# and again, until the codes are all 0'
    return
  fi
  while true; do
    # Whatever fails here is tried again: the network is not the run.
    if now="$(state)"; then
      case "$now" in
        '')
          begun=''
          create || true
          ;;
        SUSPENDED | FAILED)
          begun=''
          delete || true
          ;;
        ACTIVE)
          if [[ -z "$begun" ]]; then
            if setup && run "$@"; then
              begun=1
            fi
          elif code="$(codes)" && code="$(worst "$code")" &&
            [[ -n "$code" ]]; then
            begun=''
            if ((code == 0)); then
              echo "The run is done; \`$0 delete\` gives the slice back." >&2
              return
            elif ((code != PREEMPTED && restarts-- == 0)); then
              echo "Exit code $code; \`$0 logs\` tells why." >&2
              return "$code"
            fi
          fi
          ;;
      esac
    fi
    sleep "${SECONDS_APART:-60}"
  done
}

case "$what" in
  create | setup | delete | stop | state) "$what" ;;
  run | watch | logs) "$what" "$@" ;;
  list)
    tpus queued-resources list
    tpus tpu-vm list
    ;;
  *) usage ;;
esac
