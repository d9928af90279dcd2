"""What the server that forks jobs imports first: a request to stop is for the jobs and for the
command that follows them, but Slurm signals every process of a job. See `pipeline.local`."""

import signal

IGNORED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

for _number in IGNORED:
    signal.signal(_number, signal.SIG_IGN)


def hear() -> None:
    """In a job, which inherits it: signals do again what they do by default."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
