"""The front door: python run.py model=... data=... method=... (--help lists the choices, -m sweeps).

Composes and checks the config before torch is imported, then hands it to the worker. In a sweep a failed run stops
nothing; how many finished, had been finished before, are done by another process or failed is summed up at the end.
Exit codes: 0 fine, 1 a bug or a crash, 2 bad input, 3 another process is at it, 75 stopped with its state saved (the same
command goes on), 130 stopped at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cuttlefish.choices import help_text
from cuttlefish.compose import checked_config, sentence
from cuttlefish.errors import EXIT_AT_ONCE, EXIT_BAD_INPUT, EXIT_BUSY, Busy, CuttlefishError, Interrupted, exit_code

CONF = Path(__file__).resolve().parent / "conf"
outcomes: list[tuple[str, str | Exception]] = []
"""Each run of this process: what was asked for, and `finished`, `skipped` (had been finished before) or what went wrong."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> None:
    job = HydraConfig.get()
    asked = " ".join(OmegaConf.to_container(job.overrides.task, resolve=False))
    try:
        config = checked_config(composed, job.runtime.choices)
        from cuttlefish.worker import attend  # imports torch

        outcome, _ = attend(config)
    except Exception as error:
        if not _in_this_process(job):
            raise  # the launcher's own way to report from elsewhere
        _tell(error, f"{asked}: " if job.mode == RunMode.MULTIRUN else "")
        outcomes.append((asked, error))
    else:
        outcomes.append((asked, outcome))


def main() -> int:
    outcomes.clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, for us to tell in one sentence
    if {"--help", "-h"} & set(sys.argv):
        print(help_text(CONF))
        return 0
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))  # Hydra stumbles over them amid overrides
    try:
        run()
    except Interrupted as error:
        _say(str(error))
        return exit_code(error)
    except KeyboardInterrupt:
        return EXIT_AT_ONCE
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _say(sentence(error, CONF))
        return EXIT_BAD_INPUT
    except CuttlefishError as error:  # from a launcher that runs jobs elsewhere
        _tell(error)
        return exit_code(error)
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        _say(sentence(error))
        return EXIT_BAD_INPUT
    return _sum_up()


def _sum_up() -> int:
    """Say how the runs of a sweep went; the exit code of the worst."""
    errors = [outcome for _, outcome in outcomes if isinstance(outcome, Exception)]
    failed = [asked for asked, outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, Busy)]
    counts = {"finished": 0, "skipped (finished before)": 0, "being run by another process": len(errors) - len(failed), "failed": len(failed)}
    for _, outcome in outcomes:
        if isinstance(outcome, str):
            counts["finished" if outcome == "finished" else "skipped (finished before)"] += 1
    if len(outcomes) > 1:
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        _say(f"{len(outcomes)} runs: {told}" + (f" ({', '.join(failed)})" if failed else ""))
    return max((exit_code(error) for error in errors), key=[0, EXIT_BUSY, EXIT_BAD_INPUT, 1].index, default=0)


def _in_this_process(job: DictConfig) -> bool:
    return job.mode != RunMode.MULTIRUN or job.launcher._target_.endswith("BasicLauncher")


def _tell(error: Exception, prefix: str = "") -> None:
    if not isinstance(error, CuttlefishError):
        traceback.print_exception(error)
    _say(f"{prefix}{error}")


def _say(text: str) -> None:
    print(f"cuttlefish: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
