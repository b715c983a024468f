#!/usr/bin/env bash
# Commands of one host of a slice; tpu_vm.sh runs it on all hosts over ssh.
#
#   worker.sh setup          installs its checkout
#   worker.sh run COMMAND... starts COMMAND, detached, in the checkout
#   worker.sh stop           sends SIGTERM: the command saves and stops
#   worker.sh code           its exit code, or "running"; 76 if it has none
#   worker.sh idle           fails while the command runs
#   worker.sh status         host, code and the last line of the log
set -euo pipefail

# All files are in the checkout: venv/, and run/ of the command.
cd "$(dirname "$0")/.."

setup() {
  # Changes nothing while a run is active.
  idle
  # JAX recommends it on v5e and newer: the runtime starts and ends faster.
  echo always |
    sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null || true
  # The system Python may be too old, and may reject pip installations.
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
  local uv="$HOME/.local/bin/uv"
  [[ -e venv ]] || "$uv" venv --quiet --python 3.12 venv
  "$uv" pip install --quiet --python venv/bin/python \
    -c constraints.txt -e '.[tpu,gcs]'
}

run() {
  mkdir -p run
  idle
  rm -f run/code run/pid
  # Variables from tpu_vm.sh, e.g. LIBTPU_INIT_ARGS.
  if [[ -e environment ]]; then
    set -a
    # shellcheck source=/dev/null
    . ./environment
    set +a
  fi
  # shellcheck disable=SC2016 # The inner shell expands.
  setsid nohup bash -c '"$@" &
    echo "$! $(cat /proc/sys/kernel/random/boot_id)" >run/pid
    wait $!; echo $? >run/code' run "$@" >run/log 2>&1 </dev/null &
  local try
  for ((try = 0; try < 100; try++)); do
    [[ ! -s run/pid ]] || return 0
    sleep 0.1
  done
  echo "$(hostname): the command did not start." >&2
  return 1
}

# pid: prints the process id of the command while it runs. After a restart of
# the machine another process may have this id.
pid() {
  local pid boot
  [[ -s run/pid ]] && read -r pid boot <run/pid &&
    [[ "$boot" == "$(cat /proc/sys/kernel/random/boot_id)" ]] &&
    kill -0 "$pid" 2>/dev/null && echo "$pid"
}

code() {
  if [[ -e run/code ]]; then
    cat run/code
  elif pid >/dev/null; then
    echo running
  else
    echo 76 # Never started, or the host was restarted: try again.
  fi
}

idle() {
  if [[ "$(code)" == running ]]; then
    echo "$(hostname): a run is going on; stop it first." >&2
    return 1
  fi
}

case "${1:-}" in
  setup | run) "$@" ;;
  stop) [[ "$(code)" != running ]] || kill -TERM "$(pid)" ;;
  code | idle) "$1" ;;
  status) echo "$(hostname): $(code) | $(tail -n 1 run/log 2>/dev/null)" ;;
  *)
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac
