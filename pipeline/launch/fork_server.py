"""Signals of the server process that forks jobs; it imports this module first.

A stop signal is meant for the jobs and for the command that follows them, but Slurm signals every
process of a job, and a terminal every process of a command: the server ignores it. See
`pipeline.launch.local`.
"""

import signal

IGNORED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

for _number in (*IGNORED, signal.SIGINT):
    signal.signal(_number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # blocked by its parent


def restore_signals() -> None:
    """In a forked job: restore the default handlers. Not of SIGINT: Ctrl-C in a terminal is for
    the command that follows the job, until the job installs its own handler."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL)
