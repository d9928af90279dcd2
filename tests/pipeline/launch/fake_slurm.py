"""Slurm's commands as scripts that answer what a test has written into files."""

from __future__ import annotations

from pathlib import Path

_AWAY = "Unable to contact slurm controller (connect failure)"
_HEAD = """\
#!/bin/sh
here={here}
read -r mode rest < {mode}
if [ "$mode" = away ] && [ -n "$rest" ]; then
  if [ $rest = 1 ]; then echo ok; else echo "away $((rest-1))"; fi > {mode}
fi
"""
# $mode is what the test wants of this command: ok, away, hang, garbage, empty, lost, refuse …
_SCRIPTS = {
    "squeue": f"""
case $mode in
away) echo "slurm_load_jobs error: {_AWAY}" >&2; exit 1;;
swallowed) echo "slurm_load_jobs error: {_AWAY}" >&2; exit 0;;
hang) sleep 60;;
garbage) echo "<html>502 Bad Gateway</html>"; exit 0;;
esac
case "$*" in *%o*) cat $here/commands;; *) cat $here/queue;; esac""",
    "sbatch": f"""
case $mode in
away) echo "sbatch: error: Batch job submission failed: {_AWAY}" >&2; exit 1;;
full) echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
      echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy \
(job submit limit, user's size and/or time limits)" >&2; exit 1;;
refuse) cat $here/refusal >&2; exit 1;;
room*) if [ $(grep -c "$(sed 's/^room //' $here/sbatch.mode)" "$1") = 0 ]; then
       echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi;;
esac
n=$(cat $here/n); echo $((n+1)) > $here/n
cat "$1" >> $here/scripts
echo "$n $n $1" >> $here/commands
[ "$mode" = lost ] && {{ echo "sbatch: error: Batch job submission failed: \
Socket timed out on send/recv operation" >&2; exit 1; }}
[ "$mode" = garbage ] && {{ echo "<html>"; exit 0; }}
echo "Submitted batch job $n" """,
    "srun": "true",
    "scancel": """
fail() { echo "scancel: error: $1" >&2; exit 1; }
[ $mode = away ] && fail "Socket timed out on send/recv operation"
[ $mode = gone ] && fail "Kill job error on job id 1: Invalid job id specified"
[ $mode = refuse ] && fail "Access/permission denied"
for job in "$@"; do echo $job >> $here/cancelled; done""",
    "scontrol": f"""
[ $mode = away ] && {{ echo "{_AWAY}" >&2; exit 1; }}
[ $mode = refuse ] && {{ echo "Requested operation is presently disabled" >&2; exit 1; }}
case "$*" in "show config") cat $here/config;; *) echo "$@" >> $here/requeued;; esac""",
    "sinfo": "[ $mode = away ] && exit 1; cat $here/partitions",
}


class FakeSlurm:
    """A folder of scripts that stand for Slurm's commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in _SCRIPTS.items():
            path = folder / name
            head = _HEAD.format(here=folder, mode=f"{folder}/{name}.mode")
            path.write_text(f"{head}{text.strip()}\n")
            path.chmod(0o755)
            self.mode(name, "ok")
        for name in (
            "queue",
            "commands",
            "config",
            "scripts",
            "partitions",
            "cancelled",
            "requeued",
        ):
            self.write(name, "")
        self.write("n", "17\n")

    def mode(self, command: str, mode: str) -> None:
        """How a command behaves from now on; `away 2`: for two calls."""
        self.write(f"{command}.mode", f"{mode}\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def queue(self, *lines: str) -> None:
        """What squeue prints: `17 PENDING Priority`."""
        self.write("queue", "".join(f"{line}\n" for line in lines))
