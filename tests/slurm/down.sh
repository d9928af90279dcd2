#!/usr/bin/env bash
# Ends what up.sh FOLDER started, the last first, by the pids that it wrote down.
set -uo pipefail
base=$1
export SLURM_CONF="$base/etc/slurm.conf"
timeout 10 squeue -h -o %A 2> /dev/null | xargs -r timeout 10 scancel 2> /dev/null
for _ in $(seq 30); do
  [ -z "$(timeout 5 squeue -h 2> /dev/null)" ] && break
  sleep 0.5
done
tac "$base/pids" | while read -r pid name; do
  if tr '\0' ' ' 2> /dev/null < "/proc/$pid/cmdline" | grep -q "${name%%.*}"; then
    kill -TERM "$pid"
    for _ in $(seq 100); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
    kill -0 "$pid" 2> /dev/null && kill -KILL "$pid"
  fi
done
exit 0
