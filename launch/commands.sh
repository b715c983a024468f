# shellcheck shell=bash
# What the launchers share, to be sourced: commands that are printed before they
# run, or, after --dry-run, printed alone; usage from a script's own header.

DRY_RUN=''

# execute COMMAND...: prints it, quoted so that it can be pasted, and runs it.
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

# quoted WORD...: one line of shell that means these words.
quoted() {
  local word text=''
  for word in "$@"; do
    [[ "$word" =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="${word@Q}"
    text+=" $word"
  done
  echo "${text:1}"
}

# usage: prints the comment on top of the script that was called, and ends it.
usage() {
  sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

# mounted URL: gs://bucket/path as a path below the folder where the bucket is
# mounted.
mounted() {
  [[ "$1" == gs://?*/?* ]] || {
    echo "WORKDIR=$1: expected gs://BUCKET/PATH." >&2
    return 2
  }
  local path="${1#gs://}"
  echo "$MOUNT/${path#*/}"
}

# bucket URL: BUCKET of gs://BUCKET/path.
bucket() {
  local path="${1#gs://}"
  echo "${path%%/*}"
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
