#!/usr/bin/env bash
# What one host of a slice does; tpu_vm.sh calls it on all of them over ssh.
#
#   worker.sh setup BUCKET   installs the checkout it lies in, mounts the bucket
#   worker.sh run COMMAND... starts it, detached, in the checkout
#   worker.sh stop           SIGTERM: it saves, and stops
#   worker.sh code           its exit code, or "running"
set -euo pipefail

# Everything is in the checkout: venv/, bucket/, and of the command run/.
cd "$(dirname "$0")/.."

setup() {
  # The machines' own Python may be older than ours.
  python3 -m pip install --quiet --user uv
  local uv="$HOME/.local/bin/uv"
  [[ -e venv ]] || "$uv" venv --quiet --python 3.12 venv
  "$uv" pip install --quiet --python venv/bin/python \
    -c constraints.txt -e '.[tpu]'
  # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
  if ! command -v gcsfuse >/dev/null; then
    local key=/usr/share/keyrings/cloud.google.asc
    local url=https://packages.cloud.google.com/apt
    curl -fsS "$url/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $url gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -q update
    sudo apt-get -qy install gcsfuse
  fi
  mkdir -p bucket
  # A checkpoint is a folder that is renamed when it is whole, and what one host
  # writes the others look for at once.
  mountpoint -q bucket || gcsfuse --implicit-dirs --rename-dir-limit=1000000 \
    --metadata-cache-ttl-secs=0 "$1" bucket
}

run() {
  mkdir -p run
  if [[ "$(code)" == running ]]; then
    echo "$(hostname): a run is going on; stop it first." >&2
    return 1
  fi
  rm -f run/code
  # shellcheck disable=SC2016 # It is the inner shell that expands.
  setsid nohup bash -c '"$@" & echo $! >run/pid; wait $!; echo $? >run/code' \
    run "$@" >run/log 2>&1 </dev/null &
}

code() {
  if [[ -e run/code ]]; then
    cat run/code
  elif [[ -e run/pid ]] && kill -0 "$(cat run/pid)" 2>/dev/null; then
    echo running
  else
    echo 1 # It never began, or the host was started again.
  fi
}

case "${1:-}" in
  setup | run) "$@" ;;
  stop) [[ "$(code)" != running ]] || kill -TERM "$(cat run/pid)" ;;
  code) code ;;
  *)
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac
