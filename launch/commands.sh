# shellcheck shell=bash
# Functions of the launchers, to be sourced with the arguments of the script:
# commands that are printed before they run, or only printed under --dry-run;
# usage from the header of a script.

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  echo "$0 needs bash 4.4 or newer, and this is $BASH_VERSION." >&2
  exit 1
fi

# Exit codes of a run that was stopped and has saved, and of one that lost a
# process: fusar_jax/training/distributed.py.
PREEMPTED=75
# shellcheck disable=SC2034 # Used by the scripts that source this one.
PEER_LOST=76

# --dry-run is accepted at any position: after the verb it must not reach the
# train command of a real run. ARGUMENTS: all other arguments.
DRY_RUN=''
ARGUMENTS=()
for argument in "$@"; do
  if [[ "$argument" == --dry-run ]]; then
    DRY_RUN=1
  else
    ARGUMENTS+=("$argument")
  fi
done
unset argument

# execute COMMAND...: prints the command, quoted for pasting, and runs it.
execute() {
  local text
  text="$(quoted "$@")"
  if [[ -n "$DRY_RUN" ]]; then
    echo "$text"
    return
  fi
  echo "+ $text" >&2
  "$@"
}

# quoted WORD...: prints the words as one command of any POSIX shell. Slurm runs
# it with /bin/sh, to which the $'...' of bash's @Q is no quoting.
quoted() {
  local word text='' quote="'" escaped="'\\''"
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] ||
      word="'${word//"$quote"/"$escaped"}'"
    text+=" $word"
  done
  printf '%s\n' "${text:1}"
}

# numbers VARIABLE...: exits unless each is a number or empty. In an arithmetic
# expression bash would evaluate, and execute, anything else.
numbers() {
  local variable
  for variable in "$@"; do
    [[ "${!variable:-0}" =~ ^[0-9]+$ ]] && continue
    echo "$variable=${!variable}: expected a number." >&2
    exit 2
  done
}

# usage: prints the header comment of the calling script and exits.
usage() {
  sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

# libtpu_options: exports LIBTPU_INIT_ARGS with the options of TYPE's chip, unless
# it names them already.
libtpu_options() {
  local chip option file
  file="$(dirname "${BASH_SOURCE[0]}")/../fusar_jax/planning/libtpu_options.txt"
  while read -r chip option; do
    [[ "${TYPE:-}" == "$chip"-* ]] || continue
    [[ " ${LIBTPU_INIT_ARGS:-}" != *" ${option%%=*}="* ]] || continue
    LIBTPU_INIT_ARGS="$option${LIBTPU_INIT_ARGS:+ $LIBTPU_INIT_ARGS}"
    export LIBTPU_INIT_ARGS
  done <"$file"
}

# passed: prints the names of local variables that are passed to the run: those
# that match a pattern of PASS. JAX_PLATFORMS only if PASS names it, because it
# describes this machine.
passed() {
  local variable pattern patterns
  read -ra patterns <<<"${PASS-LIBTPU_INIT_ARGS HF_TOKEN JAX_*}"
  for variable in $(compgen -e); do
    for pattern in ${patterns[@]+"${patterns[@]}"}; do
      # shellcheck disable=SC2053 # A pattern is meant.
      [[ "$variable" == $pattern ]] || continue
      [[ "$variable" != JAX_PLATFORMS || "$pattern" == JAX_PLATFORMS ]] || continue
      echo "$variable"
      break
    done
  done
}

# scratch: a folder in SCRATCH that goes with this script, for files to send.
scratch() {
  if [[ -n "$DRY_RUN" ]]; then
    SCRATCH=TEMPORARY
  elif [[ -z "${SCRATCH:-}" ]]; then
    SCRATCH="$(mktemp -d)" && trap 'rm -rf "$SCRATCH"' EXIT
  fi
}

# region: of ZONE.
region() {
  echo "${ZONE%-*}"
}

# check_workdir: fails unless WORKDIR, which outlives the machines of the run, is
# in a bucket.
check_workdir() {
  : "${WORKDIR:?the run, e.g. WORKDIR=gs://my-bucket/runs/stage1}"
  [[ "$WORKDIR" == gs://?*/?* ]] || {
    echo "WORKDIR=$WORKDIR: expected gs://BUCKET/PATH." >&2
    return 2
  }
}

# worst: of exit codes, one a line on the standard input: a failure before a
# lost peer before a preemption before 0.
worst() {
  awk -v preempted="$PREEMPTED" -v lost="$PEER_LOST" '
    function rank(code) {
      return code == 0 ? 0 : code == preempted ? 1 : code == lost ? 2 : 3
    }
    rank($1) >= rank(worst) { worst = $1 }
    END { print worst + 0 }'
}

# await PID: its exit code in CODE, once it has ended. A trap that sets HEARD=1
# interrupts `wait`, not the process.
# shellcheck disable=SC2034 # Who calls reads CODE.
await() {
  while true; do
    CODE=0
    HEARD=''
    wait "$1" || CODE=$?
    [[ -n "$HEARD" ]] || return 0
  done
}
