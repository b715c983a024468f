#!/usr/bin/env bash
# Runs on GPUs of a Slurm cluster, with one process per GPU or per node.
#
#   launch/slurm.sh [--dry-run] run ARGUMENTS OF fusar_jax.train
#   launch/slurm.sh [--dry-run] stop | delete | logs | status | list
#
# A job that is preempted or near its time limit saves and is requeued with its
# job id; it resumes from its workdir. `stop` lets the job save and ends it.
# `delete` ends it immediately, also while it is pending.
#
# Required (environment):
#   NAME     of the job; its log is NAME.log (all but list)
#   NODES    number of nodes, e.g. 2 (run)
#   GPUS     per node, e.g. 8 (run)
#   WORKDIR  of the run, on a shared file system (run)
# Optional:
#   PER      gpu (default) or node: one process per GPU or per node
#   PYTHON   on a shared file system (default python)
#   GRACE    seconds before the time limit for saving (default 120)
#   RESTARTS maximum number of requeues (default 100)
#   SBATCH   more options, e.g. SBATCH='--partition=gpu --time=1-00:00:00'
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

# The batch script, run on the first node: job PROCESSES_PER_NODE COMMAND...
job() {
  local node hosts='' child stopping='' i
  numbers RESTARTS
  # For messages: process k runs on the k-th host.
  for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    for ((i = 0; i < $1; i++)); do
      hosts+="${hosts:+,}$node"
    done
  done
  # Since 22.05 srun does not inherit --cpus-per-task from sbatch.
  if [[ -n "${SLURM_CPUS_PER_TASK:-}" ]]; then
    export SRUN_CPUS_PER_TASK="${SRUN_CPUS_PER_TASK:-$SLURM_CPUS_PER_TASK}"
  fi
  # Slurm numbers the processes. Jobs that share a node need ports of their own.
  export FUSAR_COORDINATOR="${hosts%%,*}:$((61440 + SLURM_JOB_ID % 4096))"
  # No GPU binding: a bound process sees its GPU as number 0, but JAX selects
  # number SLURM_LOCALID. A process that exits after saving must not end others.
  FUSAR_HOSTS="$hosts" srun --label --distribution=block --gpu-bind=none \
    --kill-on-bad-exit=0 "${@:2}" &
  child=$!
  # Signals the steps only, not this shell.
  trap 'HEARD=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
  trap 'HEARD=1; stopping=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR2
  await "$child"
  if ((CODE == PREEMPTED)) && [[ -z "$stopping" ]]; then
    if ((${SLURM_RESTART_COUNT:-0} < ${RESTARTS:-100})); then
      scontrol requeue "$SLURM_JOB_ID"
    else
      echo "slurm.sh: queued ${SLURM_RESTART_COUNT:-0} times, and no more;" \
        "the same command resumes." >&2
    fi
  fi
  exit "$CODE"
}

run() {
  local command per_node devices job more=()
  (($# > 0)) || usage
  : "${NODES:?how many nodes, e.g. NODES=2}"
  : "${GPUS:?GPUs of each node, e.g. GPUS=8}"
  : "${WORKDIR:?the run, e.g. WORKDIR=/scratch/me/stage1}"
  numbers NODES GPUS GRACE RESTARTS
  command=("${PYTHON:-python}" -u -m fusar_jax.train "$@" --workdir="$WORKDIR"
    --preempted_exit="$PREEMPTED")
  case "${PER:-gpu}" in
    gpu) per_node="$GPUS" ;;
    node)
      per_node=1
      # Otherwise JAX uses one GPU per process.
      devices="$(seq -s, 0 $((GPUS - 1)))"
      command=(env JAX_LOCAL_DEVICE_IDS="$devices" "${command[@]}")
      ;;
    *)
      echo "PER=$PER: expected gpu or node." >&2
      return 2
      ;;
  esac
  read -rd '' -a more <<<"${SBATCH:-}" || true # Its end is no delimiter.
  # --wrap, because Slurm would run a copy of a script file elsewhere.
  job="$(quoted "$(realpath "$0")" job "$per_node" "${command[@]}")"
  execute sbatch --job-name="$NAME" --nodes="$NODES" \
    --ntasks-per-node="$per_node" --gpus-per-node="$GPUS" --requeue \
    --output="$NAME.log" --open-mode=append --signal="B:USR1@${GRACE:-120}" \
    ${more[@]+"${more[@]}"} --wrap="exec $job"
}

set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
(($# > 0)) || usage
what="$1"
shift
case "$what" in
  run | stop | delete | logs | status) : "${NAME:?a name for the job, e.g. NAME=stage1}" ;;
esac
case "$what" in
  job | run) "$what" "$@" ;;
  stop) execute scancel --signal=USR2 --batch --name="$NAME" --me ;;
  delete) execute scancel --name="$NAME" --me ;;
  logs) execute tail -n +1 -F -- "$NAME.log" ;;
  status) execute squeue --me --name="$NAME" ;;
  list) execute squeue --me ;;
  *) usage ;;
esac
