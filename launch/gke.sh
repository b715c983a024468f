#!/usr/bin/env bash
# A slice of TPUs in a Kubernetes cluster: a JobSet, made by XPK (pip install
# xpk). The JobSet restarts what is preempted, from its workdir.
#
#   launch/gke.sh [--dry-run] create | image | stop | delete | list | logs
#   launch/gke.sh [--dry-run] run ARGUMENTS OF fusar_jax.train
#
# create  the cluster, and the bucket in it      image  builds and pushes IMAGE
# stop    deletes the run's JobSet, which saves   delete  the cluster
#
# To be given (environment):
#   PROJECT, ZONE  of Google Cloud
#   CLUSTER        name of the cluster
#   TYPE           e.g. v5litepod-16, v5p-32, v6e-16 (create, run)
#   BUCKET         mounted at /bucket in each container (create)
#   IMAGE          REGION-docker.pkg.dev/PROJECT/REPOSITORY/fusar-jax (image, run)
#   NAME           of the run (run, stop, logs)
#   WORKDIR        gs://BUCKET/PATH of the run (run)
# May be given:
#   CAPACITY       spot (default), on-demand, or the name of a reservation
#   RESTARTS       of the JobSet (default 100: preemptions count, too)
#   GRACE          seconds to save in (default 120)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

MOUNT=/bucket

if [[ "${1:-}" == --dry-run ]]; then
  DRY_RUN=1
  shift
fi
(($# > 0)) || usage
what="$1"
shift
: "${PROJECT:?the Google Cloud project, e.g. PROJECT=my-project}"
: "${ZONE:?the zone, e.g. ZONE=us-west4-a}"
: "${CLUSTER:?a name for the cluster, e.g. CLUSTER=fusar}"
place=(--project="$PROJECT" --zone="$ZONE")

on_cluster() {
  execute xpk "$@" --cluster="$CLUSTER" "${place[@]}"
}

create() {
  local capacity
  : "${TYPE:?a TPU type, e.g. TYPE=v5litepod-16}"
  : "${BUCKET:?the bucket of the runs, e.g. BUCKET=my-bucket}"
  case "${CAPACITY:-spot}" in
    spot | on-demand) capacity="--${CAPACITY:-spot}" ;;
    *) capacity="--reservation=$CAPACITY" ;;
  esac
  on_cluster cluster create --tpu-type="$TYPE" "$capacity"
  on_cluster storage attach "$BUCKET" --type=gcsfuse --bucket="$BUCKET" \
    --mount-point="$MOUNT" --size=1 --readonly=false --auto-mount=true
}

image() {
  : "${IMAGE:?e.g. IMAGE=us-docker.pkg.dev/my-project/my-repository/fusar-jax}"
  execute docker build --tag="$IMAGE" --file="$(dirname "$0")/Dockerfile" \
    "$(dirname "$0")/.."
  execute docker push "$IMAGE"
}

run() {
  local command workdir
  (($# > 0)) || usage
  : "${NAME:?a name for the run, e.g. NAME=stage1}"
  : "${TYPE:?the TPU type of the cluster, e.g. TYPE=v5litepod-16}"
  : "${IMAGE:?e.g. IMAGE=us-docker.pkg.dev/my-project/my-repository/fusar-jax}"
  : "${WORKDIR:?the run, e.g. WORKDIR=gs://my-bucket/runs/stage1}"
  workdir="$(mounted "$WORKDIR")"
  command="$(quoted python -u -m fusar_jax.train "$@" \
    --workdir="$workdir" --preempted_exit=75)"
  # A preempted process ends with 75, so a restart "on user code failure" it is.
  on_cluster workload create --workload="$NAME" --tpu-type="$TYPE" \
    --docker-image="$IMAGE" --command="$command" \
    --max-restarts="${RESTARTS:-100}" \
    --restart-on-user-code-failure \
    --termination-grace-period-seconds="${GRACE:-120}"
}

stop() {
  : "${NAME:?the name of the run}"
  on_cluster workload delete --workload="$NAME" --force
}

logs() {
  : "${NAME:?the name of the run}"
  execute gcloud container clusters get-credentials "$CLUSTER" "${place[@]}"
  execute kubectl logs --follow --prefix --max-log-requests=64 \
    --selector="jobset.sigs.k8s.io/jobset-name=$NAME"
}

delete() {
  on_cluster cluster delete
}

list() {
  on_cluster workload list
}

case "$what" in
  create | image | stop | delete | list | logs) "$what" ;;
  run) run "$@" ;;
  *) usage ;;
esac
