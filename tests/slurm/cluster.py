"""A real Slurm on loopback: slurmctld and virtual nodes as background processes of the tests.

No accounting, no munge, fake GPUs as device nodes; all files in one folder, all ports free ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

PACKAGES = ("slurm-wlm", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
UP_S = 30.0
SHARDS = 2

CONF = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SwitchType=switch/none
MpiDefault=none
MaxArraySize=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=30
SlurmdTimeout=30
InactiveLimit=0
SlurmdParameters=config_overrides
GresTypes={kinds}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={base}/finished.txt
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def may_install() -> bool:
    """Whether the tests may install Debian's packages: in CI, or where it is requested."""
    return os.environ.get("CI") == "true" or os.environ.get("ASIB_TEST_INSTALL") == "1"


def missing() -> str | None:
    """Why Slurm cannot be used here; None: it can. Installs Debian's packages where it may."""
    if all(shutil.which(program) for program in PROGRAMS):
        return None
    if not may_install():
        return "no slurmctld (CI=true or ASIB_TEST_INSTALL=1 lets the tests install slurm-wlm)"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "no slurmctld, and no right to install Debian's slurm-wlm"
    install = ["install", "-y", "--no-install-recommends", *PACKAGES]
    reason = ""
    for step in (install, ["update"], install):
        try:
            done = subprocess.run(
                [
                    "apt-get",
                    "-qq",
                    "-o",
                    "Acquire::Retries=0",
                    "-o",
                    "Acquire::http::Timeout=10",
                    *step,
                ],
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "slurm-wlm could not be installed within 90 s"
        if step is install and all(shutil.which(program) for program in PROGRAMS):
            return None
        reason = (done.stderr.strip().splitlines() or [reason])[-1]
    return f"slurm-wlm could not be installed: {reason}"


class Cluster:
    """One controller and `nodes` virtual nodes of `cpus` CPUs and `gpus` fake GPUs each; a GPU can
    be shared by SHARDS jobs where this Slurm knows shards.

    `numbered`: whether Slurm numbers the GPUs, which takes the right to make devices."""

    def __init__(self, base: Path, *, nodes: int = 2, cpus: int = 2, gpus: int = 1) -> None:
        self.base, self.gpus = base, gpus
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for part in ("state", "dev", *(f"spool/{node}" for node in self.nodes)):
            (base / part).mkdir(parents=True)
        self._configure(cpus)
        self.environment = os.environ | {"SLURM_CONF": str(base / "slurm.conf")}

    def _configure(self, cpus: int) -> None:
        host, ports = socket.gethostname().split(".")[0], _free_ports(1 + len(self.nodes))
        self.numbered = all(_device(self.base / f"dev/gpu{k}") for k in range(self.gpus))
        self.shards = SHARDS * self.gpus if version() >= (22, 5) else 0
        kinds = "gpu,shard" if self.shards else "gpu"
        has = f"gpu:{self.gpus}" + (f",shard:{self.shards}" if self.shards else "")
        last = f"[0-{self.gpus - 1}]" if self.gpus > 1 else "0"
        shared = f"Name=shard Count={self.shards}\n" if self.shards else ""
        (self.base / "gres.conf").write_text(f"Name=gpu File={self.base}/dev/gpu{last}\n{shared}")
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            f"RealMemory=64000 Gres={has} State=UNKNOWN"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        )
        user = "root" if os.geteuid() == 0 else os.environ["USER"]
        text = CONF.format(
            host=host, control=ports[0], user=user, base=self.base, nodes=nodes, kinds=kinds
        )
        (self.base / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Start all daemons and wait until all nodes are idle."""
        self._spawn("slurmctld", "slurmctld", "-D")
        for node in self.nodes:
            self.start_node(node)
        self.wait(lambda: len(self.idle()) == len(self.nodes), UP_S, "idle nodes")

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-N", node)

    @contextlib.contextmanager
    def controller_stopped(self) -> Iterator[None]:
        """A controller that takes connections and answers nothing."""
        process = self.processes["slurmctld"]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def controller_dead(self) -> Iterator[None]:
        """No controller; afterwards one that has read its state."""
        self.processes["slurmctld"].kill()
        self.processes["slurmctld"].wait()
        try:
            yield
        finally:
            self._spawn("slurmctld", "slurmctld", "-D")
            self.wait(lambda: len(self.idle()) > 0 or self._answers(), UP_S, "controller")

    def _answers(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            return "UP" in self.command("scontrol", "ping")
        return False

    def signal_job(self, job: str, number: signal.Signals) -> None:
        """Signal a job's own process, without the controller."""
        for process in self._processes_of(job):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                ours = {"pipeline.launch.slurm_job", "pipeline.launch.packed_job"}
                if ours & {*process.cmdline()} and process.name() != "srun":
                    process.send_signal(number)

    def kill_node(self, node: str, job: str) -> None:
        """SIGKILL the node's daemon and all of its job, as a crash would."""
        self.processes[node].kill()
        self.processes[node].wait()
        for process in self._processes_of(job):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes_of(self, job: str) -> set[psutil.Process]:
        """All processes of a job, with Slurm's own above them."""
        wanted = {"SLURM_CONF": self.environment["SLURM_CONF"], "SLURM_JOB_ID": job}
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if wanted.items() <= process.environ().items():
                    above = [p for p in process.parents() if p.name() == "slurmstepd"]
                    found |= {process, *above}
        return found

    def stop(self) -> None:
        """End every job, then every daemon that this object started."""
        with contextlib.suppress(subprocess.SubprocessError):
            jobs = self.command("squeue", "-h", "-o", "%A").split()
            if jobs:
                self.command("scancel", *sorted(set(jobs)))
                self.wait(lambda: not self.command("squeue", "-h"), 20, "an empty queue")
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    def command(self, *arguments: str) -> str:
        """A Slurm command's output."""
        done = subprocess.run(
            arguments, env=self.environment, capture_output=True, text=True, timeout=20, check=True
        )
        return done.stdout

    def idle(self) -> set[str]:
        try:
            return set(
                self.command("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N").split()
            )
        except subprocess.SubprocessError:
            return set()  # the controller has not started yet

    def states(self) -> list[str]:
        """`ID STATE NAME` of every job in the queue."""
        return self.command("squeue", "-h", "--array", "-o", "%i %T %j").splitlines()

    def finished(self) -> dict[str, str]:
        """Last state of every job that ended, by its number: COMPLETED, FAILED, PREEMPTED …"""
        path, found = self.base / "finished.txt", {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
            found[fields["JobId"]] = fields["JobState"]
        return found

    def wait(self, condition, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                log = (self.base / "slurmctld.log").read_text()[-3000:]
                raise TimeoutError(f"no {what} after {seconds:g} s\n{log}")
            time.sleep(0.1)

    def _spawn(self, name: str, *command: str) -> None:
        log = (self.base / f"{name}.out").open("ab")
        self.processes[name] = subprocess.Popen(
            command,
            env=self.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def version() -> tuple[int, int]:
    """The version of the installed Slurm: (22, 5)."""
    text = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def _device(path: Path) -> bool:
    """A character device (the null device under another name), or a plain file without the right
    to make one; whether it is a device."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        path.touch()
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]
