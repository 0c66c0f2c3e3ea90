"""The command line: python run.py model=... data=... method=... (--help lists the choices, -m sweeps).

Exit codes: 0 fine, 1 a bug or a crash, 2 bad input, 3 another process is at it, 75 stopped with its state
saved (the same command goes on), 130 stopped at once.
"""

import gc
import os
import sys
from pathlib import Path

try:
    import hydra
except ModuleNotFoundError:
    sys.stderr.write(
        "cuttlefish: this Python lacks Hydra; `make setup` makes one that has everything, .venv/bin/python\n"
    )
    sys.exit(2)
from omegaconf import DictConfig

from cuttlefish.config.library_names import check_library_name
from cuttlefish.config.schema import Config
from cuttlefish.errors import CuttlefishError
from cuttlefish.methods import check_knobs
from cuttlefish.process.command_line import run_command
from cuttlefish.process.outcomes import LOST, Ending
from cuttlefish.process.signals import StopSignals
from cuttlefish.process.sweep import run_one
from cuttlefish.record.folder import check_folder, check_origin
from cuttlefish.tasks.files import data_digest, data_there
from cuttlefish.tasks.registry import check_name

ROOT = Path(__file__).resolve().parent
CONF = ROOT / "conf"
sys.path.append(str(ROOT / "cuttlefish" / "process" / "launchers"))  # where Hydra finds `hydra_plugins`


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(composed: DictConfig) -> float | None:
    return run_one(composed, train)


def train(config: Config, stop: StopSignals) -> Ending:
    """Hand a config to the worker; wrong knobs and missing files are told of before torch is imported."""
    check_knobs(config.method, config.recipe.epochs)
    check_name(config.data)
    check_library_name(config.model)
    check_folder(Path(config.run_dir or config.runs_root))
    if config.fork_from is not None:
        check_origin(Path(config.fork_from))
    if not data_there(config.data):
        data_digest(config.data)  # says what is missing; reading all of it comes after the knobs are checked
    if LOST in os.environ:
        from cuttlefish.worker import record_lost

        record_lost(config, CuttlefishError(os.environ[LOST]))
    from cuttlefish.worker import run_or_skip

    return run_or_skip(config, stop)


def main() -> int:
    if any(word.startswith("replay=") for word in sys.argv[1:]):
        from cuttlefish.replay import main as replay

        return replay(sys.argv[1:])
    return run_command(run, sys.argv, CONF)


if __name__ == "__main__":
    gc.disable()  # until training begins: looking for garbage, of which imports leave none, takes time
    code = main()
    gc.freeze()  # nor need the interpreter go through all of torch as it ends
    sys.exit(code)
