#!/usr/bin/env bash
# Runs on a TPU slice of a GKE cluster as a JobSet, created by XPK (pip install
# xpk). The JobSet restarts preempted runs, which resume from their workdir.
#
#   launch/gke.sh [--dry-run] create | repository | image | delete
#   launch/gke.sh [--dry-run] run ARGUMENTS OF fusar_jax.train
#   launch/gke.sh [--dry-run] status | logs | list | stop
#
# create      creates the cluster
# repository  creates the repository of IMAGE; the service account may read it
# image       builds and pushes IMAGE
# stop        deletes the JobSet of the run, which saves within its grace period
# delete      deletes the cluster; its nodes are billed until then, even if idle
#
# Required (environment):
#   PROJECT, ZONE    of Google Cloud
#   CLUSTER          name of the cluster
#   TYPE             e.g. v5litepod-16, v5p-32, v6e-16 (create, run)
#   IMAGE            REGION-docker.pkg.dev/PROJECT/REPOSITORY/fusar-jax
#                    (repository, image, run)
#   NAME             of the run (run, status, stop, logs)
#   WORKDIR          gs://BUCKET/PATH of the run (run)
# Optional:
#   SLICES           of TYPE, connected by the data-center network (default 1;
#                    create, run)
#   CAPACITY         spot (default), on-demand, or the name of a reservation
#   SERVICE_ACCOUNT  of the nodes (default: that of Compute Engine)
#   RESTARTS         of the JobSet, including preemptions (default 10)
#   HOURS            after which the run saves and is not restarted (default 168)
#   GRACE            seconds for saving (default 120); Pods on Spot nodes always
#                    get 15, unless their nodes allow more
#   PASS             patterns of variables that are passed to the run (default
#                    'LIBTPU_INIT_ARGS HF_TOKEN JAX_*', except JAX_PLATFORMS)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
(($# > 0)) || usage
what="$1"
shift
: "${PROJECT:?the Google Cloud project, e.g. PROJECT=my-project}"
: "${ZONE:?the zone, e.g. ZONE=us-west4-a}"
: "${CLUSTER:?a name for the cluster, e.g. CLUSTER=fusar}"
place=(--project="$PROJECT" --zone="$ZONE")
numbers SLICES

on_cluster() {
  execute xpk "$@" --cluster="$CLUSTER" "${place[@]}"
}

create() {
  local capacity nodes=() slices=()
  : "${TYPE:?a TPU type, e.g. TYPE=v5litepod-16}"
  case "${CAPACITY:-spot}" in
    spot | on-demand) capacity="--${CAPACITY:-spot}" ;;
    *) capacity="--reservation=$CAPACITY" ;;
  esac
  if [[ -n "${SERVICE_ACCOUNT:-}" ]]; then
    nodes=(
      --custom-cluster-arguments="--service-account=$SERVICE_ACCOUNT"
      --custom-nodepool-arguments="--service-account=$SERVICE_ACCOUNT"
    )
  fi
  # Without workload identity, containers have the account of their node, which
  # may write to the bucket.
  [[ "${SLICES:-1}" == 1 ]] || slices=(--num-slices="$SLICES")
  on_cluster cluster create --tpu-type="$TYPE" "$capacity" \
    ${slices[@]+"${slices[@]}"} ${nodes[@]+"${nodes[@]}"}
}

# registry: HOST PROJECT REPOSITORY of IMAGE.
registry() {
  : "${IMAGE:?e.g. IMAGE=us-docker.pkg.dev/my-project/my-repository/fusar-jax}"
  [[ "$IMAGE" == ?*-docker.pkg.dev/?*/?*/?* ]] || {
    echo "IMAGE=$IMAGE: expected REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME." >&2
    return 2
  }
  IFS=/ read -r host _ repository _ <<<"$IMAGE"
}

repository() {
  local host repository role
  registry
  execute gcloud artifacts repositories create "$repository" \
    --repository-format=docker --location="${host%-docker.pkg.dev}" \
    --project="$PROJECT"
  [[ -n "${SERVICE_ACCOUNT:-}" ]] || return 0
  for role in container.defaultNodeServiceAccount artifactregistry.reader; do
    execute gcloud projects add-iam-policy-binding "$PROJECT" \
      --member="serviceAccount:$SERVICE_ACCOUNT" --role="roles/$role" \
      --condition=None
  done
}

image() {
  local host repository
  registry
  execute gcloud auth configure-docker "$host" --quiet
  # TPU hosts are x86-64; the build machine may be ARM.
  execute docker build --platform=linux/amd64 --tag="$IMAGE" \
    --file="$(dirname "$0")/Dockerfile" "$(dirname "$0")/.."
  execute docker push "$IMAGE"
}

run() {
  local command deadline names variables=() slices=()
  (($# > 0)) || usage
  : "${NAME:?a name for the run, e.g. NAME=stage1}"
  : "${TYPE:?the TPU type of the cluster, e.g. TYPE=v5litepod-16}"
  : "${IMAGE:?e.g. IMAGE=us-docker.pkg.dev/my-project/my-repository/fusar-jax}"
  check_workdir
  deadline=DEADLINE
  [[ -n "$DRY_RUN" ]] || deadline="$(($(date +%s) + ${HOURS:-168} * 3600))"
  # XPK sends SIGTERM to its child, which must be the command, not a shell. At
  # the deadline, also one that passed before a restart, `timeout` exits with a
  # code on which the JobSet does not restart.
  command="exec timeout \$(($deadline - \$(date +%s))) $(
    quoted python -u -m fusar_jax.train "$@" \
      --workdir="$WORKDIR" --preempted_exit="$PREEMPTED"
  )"
  libtpu_options
  names="$(passed)"
  if [[ -n "$names" ]]; then
    # Names only: XPK reads the values, so no command line contains them.
    scratch
    variables=(--env-file="$SCRATCH/environment")
    if [[ -n "$DRY_RUN" ]]; then
      echo "# $SCRATCH/environment: ${names//$'\n'/ }"
    else
      echo "$names" >"$SCRATCH/environment"
    fi
  fi
  [[ "${SLICES:-1}" == 1 ]] || slices=(--num-slices="$SLICES")
  # By default the JobSet restarts only on 42 and on 127 to 255.
  on_cluster workload create --workload="$NAME" --tpu-type="$TYPE" \
    ${slices[@]+"${slices[@]}"} \
    --docker-image="$IMAGE" --command="$command" \
    --max-restarts="${RESTARTS:-10}" \
    --restart-on-exit-codes="$PREEMPTED,$PEER_LOST" \
    --termination-grace-period-seconds="${GRACE:-120}" \
    ${variables[@]+"${variables[@]}"}
}

stop() {
  : "${NAME:?the name of the run}"
  on_cluster workload delete --workload="$NAME" --force
}

status() {
  : "${NAME:?the name of the run}"
  on_cluster workload list --filter-by-job="$NAME"
}

logs() {
  : "${NAME:?the name of the run}"
  # The cluster is regional.
  execute gcloud container clusters get-credentials "$CLUSTER" \
    --project="$PROJECT" --location="$(region)"
  execute kubectl logs --follow --prefix --tail=-1 --max-log-requests=64 \
    --container=jax-tpu --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
}

delete() {
  on_cluster cluster delete
}

list() {
  on_cluster workload list
}

case "$what" in
  create | repository | image | delete) "$what" ;;
  status | logs | list | stop) "$what" ;;
  run) run "$@" ;;
  *) usage ;;
esac
