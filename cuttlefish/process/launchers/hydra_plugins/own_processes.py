"""Hydra plugin for `hydra/launcher=processes`; Hydra finds plugins only in a package of this name."""

import os
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from cuttlefish.process.jobs import ROOT, Job, run_jobs
from cuttlefish.process.outcomes import Notes


class ProcessLauncher(Launcher):
    """Launcher that runs each job in a separate process.

    Args:
        n_jobs: Number of jobs at a time; -1 means one per core, as in joblib.
    """

    def __init__(self, n_jobs: int = 2):
        self.at_once = n_jobs if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + n_jobs)

    def setup(self, *, config: DictConfig, **_: Any) -> None:
        self.hydra = config.hydra

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [
            Job(words, Notes.folder / f"{number:06d}.json", self._of_all(number))
            for number, words in enumerate(job_overrides, initial_job_idx)
        ]
        run_jobs(jobs, self.at_once)
        return [JobReturn(overrides=words, status=JobStatus.COMPLETED) for words in job_overrides]

    def _of_all(self, number: int) -> list[str]:
        """Return the flags and `hydra.*` words of the sweep, which go into every job's config."""
        where = {source.provider: source.path for source in self.hydra.runtime.config_sources}
        usual = {"config-dir": None, "config-path": str(ROOT / "conf"), "config-name": "config"}
        given = {
            "config-dir": where.get("command-line"),
            "config-path": where["main"],
            "config-name": self.hydra.job.config_name,
        }
        return [
            *(f"--{flag}={value}" for flag, value in given.items() if value != usual[flag]),
            *OmegaConf.to_container(self.hydra.overrides.hydra),
            *("hydra.mode=RUN", f"hydra.job.num={number}", f"hydra.job.id={number}"),
        ]
