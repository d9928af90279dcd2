"""What the server that forks jobs imports first: a request to stop is for the jobs and for the
command that follows them, but Slurm signals every process of a job, and a terminal every process
of a command. See `pipeline.launch.local`."""

import signal

IGNORED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

for _number in (*IGNORED, signal.SIGINT):
    signal.signal(_number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # who starts the server blocks it


def hear() -> None:
    """In a job, which inherits it: signals do again what they do by default. Not SIGINT: what a
    terminal says is for the command that follows the job, until the job listens itself."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
