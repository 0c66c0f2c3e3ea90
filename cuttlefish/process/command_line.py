"""Run a Hydra command: check its flags and words, report its errors in one sentence."""

import os
import re
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cuttlefish.config.choice_checks import refuse_old_words, refuse_two_sizes
from cuttlefish.config.choices import GROUPS, SEVERAL, help_text
from cuttlefish.config.compose import compose_config
from cuttlefish.config.hydra_errors import sentence
from cuttlefish.display.format import printable
from cuttlefish.errors import (
    EXIT_AT_ONCE,
    EXIT_BAD_INPUT,
    EXIT_CRASH,
    CuttlefishError,
    Interrupted,
    exit_code,
)
from cuttlefish.process.outcomes import NOTE, Notes, begin, made, say, show_traceback, sum_up

NOT_HYDRAS = {
    r"hydra\.run\.dir=.*": "a run's folder is its own; choose it with run_dir=... or runs_root=...",
    r"hydra\.job\.chdir=(true|yes|on|1)": (
        "runs and data would be looked for in another folder; choose where a run writes with run_dir=..."
    ),
    r"hydra\.output_subdir=(?!null).*": "a run's folder has its whole config in resolved.yaml",
}
"""Hydra words whose effect would surprise users, and what to use instead."""
CHOICES = re.compile(r"\[(\s*(?!nan|inf|null|true|false)[A-Za-z_][\w/-]*\s*,?)*\]")
"""A list of a group's choices; Hydra crashes on other lists."""
NOT_INSTALLED = (
    "this hydra/launcher or hydra/sweeper is not installed: pip install -e '.[suite,launchers]' brings "
    "joblib and submitit, '.[suite,ray]' Ray, '.[suite,optuna]' Optuna"
)


def run_command(run: Callable[[], object], argv: list[str], conf: Path) -> int:
    """Run one command.

    Args:
        run: The function decorated by Hydra; it reads `sys.argv`.
        argv: `sys.argv`, sorted in place.
        conf: The config folder.

    Returns:
        The exit code.
    """
    begin()
    _quiet_hydra()
    # Hydra does not accept these flags between overrides.
    argv[1:] = sorted(argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    given, _ = get_args_parser().parse_known_args(argv[1:])
    folders = [*([Path(given.config_dir)] if given.config_dir else []), Path(given.config_path or conf)]
    if given.help:
        print(printable(help_text(folders)))
        return 0
    try:
        _check(argv[1:], given)
        if given.cfg:  # Hydra prints it without checking that it is valid
            compose_config(folders, given.overrides, given.config_name)
        run()
    except Interrupted as error:
        if NOTE not in os.environ:
            say(str(error))
        sum_up()
        return exit_code(error)
    except KeyboardInterrupt:
        sum_up()
        return EXIT_AT_ONCE
    except Exception as error:
        return _failed(error, folders)
    code = sum_up()
    if given.multirun and not made:
        say("the sweep has no runs: no name fits one of its patterns")
        return EXIT_BAD_INPUT
    return code


def _quiet_hydra() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors, for `sentence`
    # Our launcher files deliberately have the names of the plugins' schemas, which Hydra warns about.
    warnings.filterwarnings(
        "ignore", message=r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema"
    )
    # The same in joblib's processes.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.process")


def _check(words: Sequence[str], given: Namespace) -> None:
    refuse_old_words(words)
    refuse_two_sizes(words)
    for word in words:
        for pattern, told in NOT_HYDRAS.items():
            if re.fullmatch(f"[+]*{pattern}", word, re.IGNORECASE):
                raise CuttlefishError(f"{word}: {told}")
        group, _, choice = word.partition("=")
        is_list = group in GROUPS and choice.startswith("[")
        if is_list and not (group in SEVERAL and CHOICES.fullmatch(choice)):
            raise CuttlefishError(
                f"{word}: {group} must be one choice by name, as in {group}=...; --help lists them"
            )
    if given.multirun:
        _check_sweep(given)


def _check_sweep(given: Namespace) -> None:
    if given.cfg or given.info:
        raise CuttlefishError("--cfg and --info show one run; leave out -m and give one value for each word")
    for override in OverridesParser.create().parse_overrides(given.overrides):
        if override.is_range_sweep() and not any(True for _ in override.sweep_iterator()):
            raise CuttlefishError(f"{override.input_line}: there is nothing in this range to sweep over")


def _failed(error: Exception, folders: Sequence[Path]) -> int:
    """Print the error of a command that failed outside of any run, and return the exit code."""
    if isinstance(error, CuttlefishError):
        say(str(error))
    elif "Unknown plugin class" in str(error) or "hydra/sweeper/optuna" in str(error):
        say(NOT_INSTALLED)
    elif isinstance(error, HydraException | OmegaConfBaseException | YAMLError) or (
        isinstance(error, ValueError) and "Config group override" in str(error)
    ):
        say(sentence(error, folders))
    elif isinstance(error, OSError) and error.filename and not made:
        say(f"cannot make Hydra's folder {error.filename}: {error.strerror}; choose another runs_root")
    elif Notes.folder is None and not made:
        raise error
    else:
        show_traceback(error)
        sum_up()
        say(
            f"the launcher or the sweeper gave up ({type(error).__name__}); runs that were not told of may "
            "be unfinished, and the same command goes on with them"
        )
        return EXIT_CRASH
    return EXIT_BAD_INPUT
