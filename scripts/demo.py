"""The method on a small scale, offline: full rank and Cuttlefish on scikit-learn's digits, side by side on one screen."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from cuttlefish.compose import checked_config
from cuttlefish.config import Config
from cuttlefish.report.summary import as_text, comparison_summary
from cuttlefish.run_folder import PLOTS, read_profile, read_ranks
from cuttlefish.worker import identify, run_config

CONF = Path(__file__).resolve().parent.parent / "conf"


def demo_config(method: str, overrides: list[str]) -> Config:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [f"experiment=demo/{method}", *overrides], return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        choices = dict(composed.hydra.runtime.choices)
        del composed.hydra
    return checked_config(composed, choices)


def main(overrides: list[str]) -> None:
    configs = {method: demo_config(method, overrides) for method in ("full_rank", "cuttlefish")}
    records = {method: run_config(config) for method, config in configs.items()}
    folder = identify(configs["cuttlefish"]).folder
    plots = sorted((folder / PLOTS).glob("*.png"))
    print()
    print(as_text(comparison_summary(records["full_rank"], records["cuttlefish"], read_profile(folder), read_ranks(folder), plots)))


if __name__ == "__main__":
    main(sys.argv[1:])
