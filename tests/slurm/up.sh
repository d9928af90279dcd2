#!/usr/bin/env bash
# A real Slurm on loopback: munged, slurmctld and two virtual nodes with two fake GPUs each, as plain
# background processes. Usage: up.sh FOLDER (short: sockets lie in it). Prints SLURM_CONF's value.
# Needs slurm-wlm, munge and root; installs nothing. Accounting is left out, as on many sites.
set -euo pipefail
base=$1; port=${2:-16817}
host=$(hostname -s)
mkdir -p "$base"/{etc,log,state,spool,munge,dev}
chmod 755 "$base"; chmod 711 "$base/munge"
: > "$base/pids"

# Every daemon stays in the foreground of its own session, so its pid is the one that is kept.
start() {
  local name=$1; shift
  setsid "$@" < /dev/null >> "$base/log/$name.out" 2>&1 &
  echo "$! $name" >> "$base/pids"
}
wait_for() {
  local end=$((SECONDS + 30))
  until timeout 5 "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "timeout: $*" >&2; exit 1; }
    sleep 0.1
  done
}

head -c 1024 /dev/urandom > "$base/munge/key"; chmod 600 "$base/munge/key"
start munged munged --foreground --force --num-threads=2 --key-file="$base/munge/key" \
  --socket="$base/munge/s" --pid-file="$base/munge/pid" --log-file="$base/log/munged.log" \
  --seed-file="$base/munge/seed"
wait_for munge -S "$base/munge/s" -n

for k in 0 1; do
  mknod "$base/dev/gpu$k" c 1 3 2> /dev/null || touch "$base/dev/gpu$k"
done
echo "Name=gpu File=$base/dev/gpu[0-1]" > "$base/etc/gres.conf"
memory=$(($(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo) * 9 / 20))
cat > "$base/etc/slurm.conf" << X
ClusterName=loop
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$base/munge/s,cred_expire=5
CredType=cred/munge
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
SlurmctldPidFile=$base/slurmctld.pid
SlurmdPidFile=$base/slurmd.%n.pid
SlurmctldLogFile=$base/log/slurmctld.log
SlurmdLogFile=$base/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdParameters=config_overrides
GresTypes=gpu
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=2 RealMemory=$memory Gres=gpu:2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=2 RealMemory=$memory Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
X
export SLURM_CONF="$base/etc/slurm.conf"
start slurmctld slurmctld -D
wait_for scontrol ping
for node in n1 n2; do
  mkdir -p "$base/spool/$node"
  start "slurmd.$node" slurmd -D -N "$node"
done
wait_for bash -c "[ \$(sinfo -h -N -p main -t idle -o %N | wc -l) -eq 2 ]"
echo "$SLURM_CONF"
