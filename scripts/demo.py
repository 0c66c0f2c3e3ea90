"""Run a small offline demo: full rank and Cuttlefish on scikit-learn's digits, side by side on one screen."""

import sys
from pathlib import Path

from cuttlefish.config.compose import compose_config
from cuttlefish.display.summary import as_text, comparison_summary
from cuttlefish.engine.run import resolve_run
from cuttlefish.record.folder import PLOTS, read_profile, read_ranks
from cuttlefish.worker import run_config

CONF = Path(__file__).resolve().parent.parent / "conf"


def main(overrides: list[str]) -> None:
    configs = {
        method: compose_config(CONF, [f"experiment=demo/{method}", *overrides])
        for method in ("full_rank", "cuttlefish")
    }
    records = {method: run_config(config) for method, config in configs.items()}
    folder = resolve_run(configs["cuttlefish"]).folder
    plots = sorted((folder / PLOTS).glob("*.png"))
    profile, low = read_profile(folder), records["cuttlefish"]
    print()
    print(as_text(comparison_summary(records["full_rank"], low, profile, read_ranks(folder), plots)))
    if low.k != profile["k"]:
        print(
            f"K = {low.k} is the paper's; by this profile alone (a narrow network on this machine) K would be {profile['k']}."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
