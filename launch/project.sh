#!/usr/bin/env bash
# One-time setup of a Google Cloud project: APIs, a service account, and a
# bucket with the weights.
#
#   launch/project.sh [--dry-run] services | account | bucket | quota
#   launch/project.sh [--dry-run] weights REPOSITORY
#   launch/project.sh [--dry-run] delete BUCKET
#
# services  enables the APIs
# account   creates the service account of the slices, which may write logs
# bucket    creates the bucket near ZONE; the service account may write to it
# weights   downloads a base from the Hugging Face Hub (with HF_TOKEN if needed)
#           and copies it to the bucket
# quota     lists the quota of TPU chips; Spot uses those named Preemptible
# delete    deletes the bucket, with all runs in it, and the service account;
#           asks for the name of the bucket as confirmation
#
# Required (environment):
#   PROJECT, ZONE    of Google Cloud
#   BUCKET           name of the bucket (bucket, weights, delete)
# Optional:
#   SERVICE_ACCOUNT  default fusar@PROJECT.iam.gserviceaccount.com
#   FOLDER           local folder for weights (default weights)
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=commands.sh
. "$(dirname "$0")/commands.sh"

set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
(($# > 0)) || usage
what="$1"
shift
: "${PROJECT:?the Google Cloud project, e.g. PROJECT=my-project}"
: "${ZONE:?the zone, e.g. ZONE=us-west4-a}"
case "$what" in
  bucket | weights | delete)
    : "${BUCKET:?the bucket of the runs, e.g. BUCKET=my-bucket}"
    ;;
esac
email="${SERVICE_ACCOUNT:-fusar@$PROJECT.iam.gserviceaccount.com}"

services() {
  execute gcloud services enable tpu.googleapis.com compute.googleapis.com \
    storage.googleapis.com iam.googleapis.com cloudquotas.googleapis.com \
    container.googleapis.com artifactregistry.googleapis.com \
    cloudresourcemanager.googleapis.com --project="$PROJECT"
}

account() {
  local role
  execute gcloud iam service-accounts create "${email%%@*}" \
    --project="$PROJECT" --display-name='FUSAR slices'
  for role in logging.logWriter monitoring.metricWriter; do
    execute gcloud projects add-iam-policy-binding "$PROJECT" \
      --member="serviceAccount:$email" --role="roles/$role" --condition=None
  done
}

make_bucket() {
  execute gcloud storage buckets create "gs://$BUCKET" --project="$PROJECT" \
    --location="$(region)" --uniform-bucket-level-access
  execute gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
    --member="serviceAccount:$email" --role=roles/storage.objectUser
}

weights() {
  (($# == 1)) || usage
  local folder="${FOLDER:-weights}/${1##*/}"
  execute hf download "$1" --local-dir "$folder"
  # Excludes the metadata of the download.
  execute gcloud storage rsync --recursive --exclude='^\.cache/.*' \
    "$folder" "gs://$BUCKET/${1##*/}"
}

quota() {
  execute gcloud beta quotas info list --service=tpu.googleapis.com \
    --project="$PROJECT" --format='yaml(quotaId,dimensionsInfos)'
}

delete() {
  [[ "${1:-}" == "$BUCKET" ]] || {
    echo "To delete gs://$BUCKET and all runs in it: $0 delete $BUCKET" >&2
    return 2
  }
  execute gcloud storage rm --recursive "gs://$BUCKET"
  execute gcloud iam service-accounts delete "$email" --project="$PROJECT" \
    --quiet
}

case "$what" in
  services | account | quota) "$what" ;;
  bucket) make_bucket ;;
  weights | delete) "$what" "$@" ;;
  *) usage ;;
esac
