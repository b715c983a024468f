#!/usr/bin/env bash
# Runs on a Cloud TPU slice (queued resource), with one process per host.
#
#   launch/tpu_vm.sh [--dry-run] create | setup | status | stop | delete | list
#   launch/tpu_vm.sh [--dry-run] logs [WORKER]
#   launch/tpu_vm.sh [--dry-run] run   ARGUMENTS OF fusar_jax.train
#   launch/tpu_vm.sh [--dry-run] watch ARGUMENTS OF fusar_jax.train
#
# `run` starts the command on all workers and returns. `watch` automates all
# steps: it creates the slice if there is none, sets it up and runs the command.
# After a preemption it deletes the slice, queues a new one and runs the same
# command, which resumes from its workdir. It ends with the run or at one of the
# limits below. If a run is already active, it watches that run.
#
# Required (environment):
#   PROJECT, ZONE    of Google Cloud
#   NAME             of the slice
#   TYPE             accelerator type, e.g. v5litepod-16, v5p-32, v6e-16
#                    (create, watch; run, for the options of its compiler)
#   WORKDIR          gs://BUCKET/PATH of the run (run, watch)
# Optional:
#   CAPACITY         spot (default), on-demand, reserved, or the name of a
#                    reservation
#   SLICES           of TYPE, connected by the data-center network (default 1);
#                    set config.mesh so that data is a multiple, or "auto"
#   RUNTIME          software version; default: the one for TYPE
#   SERVICE_ACCOUNT  of the machines (default: that of Compute Engine)
#   VALID_FOR        maximum time in the queue (default 24h)
#   PASS             patterns of variables that are passed to the run (default
#                    'LIBTPU_INIT_ARGS HF_TOKEN JAX_*', except JAX_PLATFORMS)
# Limits of `watch`:
#   AUTODOWN         1: delete the slice when watch ends, except by Ctrl-C or
#                    SIGTERM
#   ATTEMPTS         maximum slices created, and starts of the run (default 10)
#   RESTARTS         of a run that fails on a healthy slice (default 3)
#   HOURS            in total; then the run saves and is stopped (default 168)
#   SECONDS_APART    polling interval (default 60)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

# Consecutive failed polls or deletions before watch gives up.
FAILED_LOOKS=30
# Time limit for a stopped run to save.
STOP_SECONDS=600

set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
(($# > 0)) || usage
what="$1"
shift
: "${PROJECT:?the Google Cloud project, e.g. PROJECT=my-project}"
: "${ZONE:?the zone, e.g. ZONE=us-west4-a}"
place=(--project="$PROJECT" --zone="$ZONE")
SLICES="${SLICES:-1}"
numbers SLICES
if [[ "$what" != list ]]; then
  : "${NAME:?a name for the slice, e.g. NAME=fusar-0}"
fi

tpus() {
  execute gcloud compute tpus "$1" "$2" "${@:3}" "${place[@]}"
}

# slices: names of the slices, as the queued resource numbers them.
slices() {
  local number
  if ((SLICES == 1)); then
    echo "$NAME"
    return
  fi
  for ((number = 0; number < SLICES; number++)); do
    echo "$NAME-$number"
  done
}

# on WORKERS COMMAND: runs it over ssh on all slices, at once; on one worker, on
# that of the first slice. Dead connections end after five minutes.
on() {
  local name job jobs=() code=0
  for name in $(slices); do
    if ((SLICES == 1)) || [[ -n "$DRY_RUN" || "$1" != all ]]; then
      on_slice "$name" "$@" || code=$?
    else
      on_slice "$name" "$@" &
      jobs+=("$!")
    fi
    [[ "$1" == all ]] || break
  done
  for job in ${jobs[@]+"${jobs[@]}"}; do
    wait "$job" || code=$?
  done
  return "$code"
}

on_slice() {
  tpus tpu-vm ssh "$1" --worker="$2" --command="$3" \
    --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=10
}

# gcloud does not copy to several workers while an ssh-agent lacks its key.
agent_has_key() {
  local key="$HOME/.ssh/google_compute_engine" print
  [[ -n "${SSH_AUTH_SOCK:-}" && -e "$key" ]] || return 0
  print="$(ssh-keygen -lf "$key" | cut -d' ' -f2)"
  ssh-add -l 2>/dev/null | grep -qF "$print" || execute ssh-add "$key"
}

# copy FILE DESTINATION: copies to all workers of all slices.
copy() {
  local name
  agent_has_key || return
  for name in $(slices); do
    tpus tpu-vm scp "$1" "$name:$2" --worker=all || return
  done
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
  local version track=() capacity=() nodes=(--node-id="$NAME")
  version="${RUNTIME:-$(runtime)}" || return
  case "${CAPACITY:-spot}" in
    spot | reserved) capacity=(--"${CAPACITY:-spot}") ;;
    on-demand) ;;
    *)
      # Only the alpha track accepts the name of a reservation.
      track=(alpha)
      capacity=(--reserved --reservation="$CAPACITY")
      ;;
  esac
  [[ -z "${SERVICE_ACCOUNT:-}" ]] ||
    capacity+=(--service-account="$SERVICE_ACCOUNT")
  ((SLICES == 1)) || nodes=(--node-prefix="$NAME" --node-count="$SLICES")
  execute gcloud ${track[@]+"${track[@]}"} compute tpus queued-resources \
    create "$NAME" "${nodes[@]}" \
    --accelerator-type="$TYPE" --runtime-version="$version" \
    --scopes=https://www.googleapis.com/auth/cloud-platform \
    --valid-until-duration="${VALID_FOR:-24h}" \
    ${capacity[@]+"${capacity[@]}"} "${place[@]}"
}

# State of the queued resource: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE,
# FAILED, SUSPENDING, SUSPENDED; empty if there is none.
state() {
  tpus queued-resources list --filter="name~/$NAME\$" \
    --format='value(state.state)'
}

delete() {
  tpus queued-resources delete "$NAME" --force --quiet
}

setup() {
  # First, because the checkout of an active run must not be replaced.
  on all "$(if_set_up 'fusar_jax/launch/worker.sh idle' :)" &&
    scratch &&
    execute git --git-dir="$(dirname "$0")/../.git" archive --format=tar \
      --prefix=fusar_jax/ --output="$SCRATCH/fusar_jax.tar" HEAD &&
    copy "$SCRATCH/fusar_jax.tar" '' &&
    on all 'tar -xf fusar_jax.tar' &&
    on all 'timeout 30m fusar_jax/launch/worker.sh setup'
}

run() {
  local command
  (($# > 0)) || usage
  check_workdir || return
  command="$(quoted venv/bin/python -u -m fusar_jax.train "$@" \
    --workdir="$WORKDIR" --preempted_exit="$PREEMPTED")"
  environment &&
    copy "$SCRATCH/environment" fusar_jax/environment &&
    on all "fusar_jax/launch/worker.sh run $command"
}

# environment: writes the variables of the run to a file, so no command line
# contains a token.
environment() {
  local name names
  libtpu_options
  names="$(passed)"
  scratch || return
  if [[ -n "$DRY_RUN" ]]; then
    echo "# $SCRATCH/environment: ${names//$'\n'/ }"
    return
  fi
  for name in $names; do
    echo "$name=${!name@Q}"
  done >"$SCRATCH/environment"
}

# All processes save and stop at the same step.
stop() {
  on all 'fusar_jax/launch/worker.sh stop'
}

logs() {
  on "${1:-0}" 'tail -n +1 -F fusar_jax/run/log'
}

status() {
  state
  on all "$(if_set_up 'fusar_jax/launch/worker.sh status' 'echo new')"
}

# if_set_up COMMAND OTHER: shell code: COMMAND with a checkout, OTHER without.
if_set_up() {
  echo "if [ -e fusar_jax/launch/worker.sh ]; then $1; else $2; fi"
}

# Exit codes of all workers, one per line, or "running", or "new".
codes() {
  on all "$(if_set_up 'fusar_jax/launch/worker.sh code' 'echo new')"
}

say() {
  echo "tpu_vm.sh: $*" >&2
}

watch() {
  numbers ATTEMPTS RESTARTS
  local attempts="${ATTEMPTS:-10}" restarts="${RESTARTS:-3}"
  local creates=0 starts=0 looks=0 begun='' now found code
  if [[ -n "$DRY_RUN" ]]; then
    state
    echo '# none:' && create
    echo '# ACTIVE:' && codes && setup && run "$@"
    echo '# ACTIVE, and begun:' && codes
    echo '# SUSPENDED or FAILED:' && delete
    echo '# and again, until the codes are all 0'
    return
  fi
  (($# > 0)) || usage
  check_workdir
  : "${TYPE:?an accelerator type, e.g. TYPE=v5litepod-16}"
  SECONDS=0
  trap 'say "watch ends, the run continues; $(billed)"; exit 130' INT TERM
  while true; do
    if ((SECONDS >= ${HOURS:-168} * 3600)); then
      stop_and_save
      finish 124 "${HOURS:-168} hours are over, HOURS allows more."
    fi
    if ((looks == FAILED_LOOKS)); then
      finish 1 "$looks commands failed in a row, see above."
    fi
    # A failed poll is repeated: a network error is no failure of the run.
    if ! now="$(state)"; then
      looks=$((looks + 1))
      pause
      continue
    fi
    case "$now" in
      '')
        begun=''
        looks=0
        ((creates++ < attempts)) ||
          finish 1 "$attempts slices were asked for, ATTEMPTS allows more."
        create || say "attempt $creates of $attempts to create failed."
        ;;
      SUSPENDED | FAILED)
        begun=''
        if delete; then looks=0; else looks=$((looks + 1)); fi
        ;;
      SUSPENDING)
        begun=''
        ;;
      ACTIVE)
        if ! found="$(codes)"; then
          looks=$((looks + 1))
        elif [[ "$found" == *running* ]]; then
          looks=0
          [[ -n "$begun" ]] || say 'a run is going on; watching it.'
          begun=1
        elif [[ -z "$begun" ]]; then
          looks=0
          ((starts++ < attempts)) ||
            finish 1 "the run was started $attempts times, ATTEMPTS allows more."
          if setup && run "$@"; then
            begun=1
          else
            say "attempt $starts of $attempts to set up and start failed."
          fi
        else
          begun=''
          looks=0
          # A new machine has replaced a lost one.
          code="$(worst <<<"${found//new/$PEER_LOST}")"
          case "$code" in
            0) finish 0 'the run is done.' ;;
            "$PREEMPTED" | "$PEER_LOST") say "exit code $code; starting again." ;;
            *)
              ((restarts-- > 0)) || finish "$code" "exit code $code."
              say "exit code $code; starting again, $restarts more allowed."
              ;;
          esac
        fi
        ;;
      *) looks=0 ;;
    esac
    pause
  done
}

pause() {
  sleep "${SECONDS_APART:-60}"
}

billed() {
  echo "the slice is billed until \`$0 delete\`."
}

# stop_and_save: returns when no process runs, or after STOP_SECONDS.
stop_and_save() {
  local end=$((SECONDS + STOP_SECONDS)) found
  stop || return 0
  while ((SECONDS < end)); do
    if found="$(codes)" && [[ "$found" != *running* ]]; then
      return
    fi
    pause
  done
}

# finish CODE REASON: ends watch; with AUTODOWN deletes the slice.
finish() {
  local try
  say "$2"
  # Deletion of the slice deletes its logs.
  (($1 == 0)) || on all 'tail -n 50 fusar_jax/run/log' >&2 || true
  if [[ "${AUTODOWN:-}" != 1 ]]; then
    say "$(billed)"
    exit "$1"
  fi
  for ((try = 1; try <= FAILED_LOOKS; try++)); do
    if delete; then
      exit "$1"
    fi
    pause
  done
  say "the slice could not be deleted; $(billed)"
  exit 1
}

case "$what" in
  create | setup | delete | stop | state | status) "$what" ;;
  run | watch | logs) "$what" "$@" ;;
  list)
    tpus queued-resources list
    tpus tpu-vm list
    ;;
  *) usage ;;
esac
