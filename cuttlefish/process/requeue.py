"""Put a run that saved itself on its scheduler's warning back into the queue."""

import os
import signal

from cuttlefish.errors import Interrupted


def requeue(interrupted: Interrupted) -> None:
    """Call submitit's own handler, which requeues the job and exits, if its warning signal stopped the run.

    While the run was training the handler was ours, so that the step could end and the state be saved.
    SIGTERM is not answered with a requeue: a person cancels a job with it, and SLURM requeues preempted jobs
    by itself.
    """
    warning = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
    if "SUBMITIT_EXECUTOR" not in os.environ or interrupted.signal != warning:
        return
    number = getattr(signal, warning)
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
