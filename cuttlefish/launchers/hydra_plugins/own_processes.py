"""What Hydra knows `hydra/launcher=processes` by (it takes launchers from a package of this name only); cuttlefish/jobs.py does the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from cuttlefish.jobs import Job, run_jobs
from cuttlefish.outcomes import Notes


class ProcessLauncher(Launcher):
    """n_jobs: how many at a time; as with joblib, -1 stands for all cores."""

    def __init__(self, n_jobs: int = 2):
        self.at_once = n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)

    def setup(self, **_: Any) -> None: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        run_jobs([Job(words, Notes.folder / f"{number:06d}.json") for number, words in enumerate(job_overrides, initial_job_idx)], self.at_once)
        return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]
