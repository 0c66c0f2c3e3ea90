"""Back into the queue: a run that saved itself because its scheduler warned it is to go on when its turn comes again."""

import os
import signal

from cuttlefish.errors import Interrupted


def requeue(interrupted: Interrupted) -> None:
    """Under submitit, if its warning signal stopped the run: call submitit's own handler, which asks for the requeue and exits.

    While the run was training the signal was ours, so that the step could end and the state be saved. SIGTERM is not answered
    with a requeue: it is how a person cancels a job, and SLURM requeues preempted ones by itself.
    """
    warning = f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"
    if "SUBMITIT_EXECUTOR" not in os.environ or interrupted.signal != warning:
        return
    number = getattr(signal, warning)
    handler = signal.getsignal(number)
    if callable(handler):
        handler(number, None)
