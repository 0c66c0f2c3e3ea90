"""Run a small offline demo: full rank and Cuttlefish on scikit-learn's digits, side by side on one screen."""

import sys
from pathlib import Path

from cuttlefish.config.compose import compose_config
from cuttlefish.display.summary import as_text, comparison_summary
from cuttlefish.engine.run import resolve_run
from cuttlefish.record.folder import PLOTS, read_epochs, read_profile, read_ranks
from cuttlefish.worker import run_config

CONF = Path(__file__).resolve().parent.parent / "conf"


def main(overrides: list[str]) -> None:
    configs = [
        compose_config(CONF, [f"experiment=demo/{method}", *overrides])
        for method in ("full_rank", "cuttlefish")
    ]
    full, low = (run_config(config) for config in configs)
    full_folder, folder = (resolve_run(config).folder for config in configs)
    plots = sorted((folder / PLOTS).glob("*.png"))
    epochs = read_epochs(full_folder), read_epochs(folder)
    print()
    print(as_text(comparison_summary(full, low, read_profile(folder), read_ranks(folder), plots, *epochs)))
    if low.switch_reason == "declined":
        print(
            "Where other work takes the cores while the stacks are timed, that answer is chance: "
            f"remove {folder} and run it again with nothing beside it."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
