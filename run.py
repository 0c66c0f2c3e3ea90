"""The front door: python run.py model=... data=... method=... (--help lists the choices, -m sweeps).

Composes and checks the config before torch is imported, then hands it to the worker. In a sweep a failed run stops
nothing; the failures are summed up at the end. Exit codes: 0 fine, 1 a bug or a crash, 2 bad input, 130 interrupted.
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
from cuttlefish.errors import CuttlefishError

CONF = Path(__file__).resolve().parent / "conf"
outcomes: list[tuple[str, Exception | None]] = []
"""Each run of this process: what was asked for, and what went wrong."""


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> None:
    job = HydraConfig.get()
    asked = " ".join(OmegaConf.to_container(job.overrides.task, resolve=False))
    try:
        config = checked_config(composed, job.runtime.choices)
        from cuttlefish.worker import run_config  # imports torch

        run_config(config)
    except Exception as error:
        if not _in_this_process(job):
            raise  # the launcher's own way to report from elsewhere
        _tell(error, f"{asked}: " if job.mode == RunMode.MULTIRUN else "")
        outcomes.append((asked, error))
    else:
        outcomes.append((asked, None))


def main() -> int:
    outcomes.clear()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, for us to tell in one sentence
    if {"--help", "-h"} & set(sys.argv):
        print(help_text(CONF))
        return 0
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))  # Hydra stumbles over them amid overrides
    try:
        run()
    except KeyboardInterrupt:
        return 130
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        _say(sentence(error, CONF))
        return 2
    except CuttlefishError as error:  # from a launcher that runs jobs elsewhere
        _tell(error)
        return 2
    except ValueError as error:
        if "Config group override" not in str(error):
            raise
        _say(sentence(error))
        return 2
    return _sum_up()


def _sum_up() -> int:
    errors = [error for _, error in outcomes if error is not None]
    if len(outcomes) > 1 and errors:
        _say(f"{len(errors)} of {len(outcomes)} runs failed: " + ", ".join(asked for asked, error in outcomes if error))
    if not errors:
        return 0
    return 2 if all(isinstance(error, CuttlefishError) for error in errors) else 1


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
