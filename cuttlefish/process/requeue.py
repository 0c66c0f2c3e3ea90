"""Requeue a run that stopped on its scheduler's warning signal."""

import os
import signal

from cuttlefish.errors import Interrupted


def requeue(interrupted: Interrupted) -> None:
    """Call submitit's handler, which requeues the job and exits, if its warning signal stopped the run.

    During training our own handler was active, so that the step could finish and the state be saved. SIGTERM
    does not requeue: users cancel jobs with it, and SLURM requeues preempted jobs itself.
    """
    warning = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
    if "SUBMITIT_EXECUTOR" not in os.environ or interrupted.signal != warning:
        return
    number = getattr(signal, warning)
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
