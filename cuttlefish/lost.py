"""The record of a run whose process was killed before it could leave one.

    python -m cuttlefish.lost "what ended it" model=... data=... seed=0
"""

from __future__ import annotations

import sys
from pathlib import Path

from cuttlefish.compose import compose_config
from cuttlefish.config import Config
from cuttlefish.engine.device import choose_device
from cuttlefish.errors import CuttlefishError
from cuttlefish.provenance import provenance
from cuttlefish.record import new_record, write_record
from cuttlefish.run_folder import RECORD
from cuttlefish.validate import to_dict
from cuttlefish.worker import identify

CONF = Path(__file__).resolve().parents[1] / "conf"


def record_lost(config: Config, sentence: str, words: list[str]) -> None:
    """A `failed` record with what a config says of its run, unless there is a record."""
    run = identify(config)
    if (run.folder / RECORD).exists():
        return
    config = run.config
    facts = {
        "run_key": run.key,
        "model": config.model.name,
        "data": config.data.name,
        "method": config.method["name"],
        "recipe": config.recipe.name,
        "preset": config.method.get("preset"),
        "seed": config.seed,
        "epochs": config.recipe.epochs,
        "scale": config.scale,
        "experiment_name": config.experiment_name,
        "config": to_dict(config),
        "data_digest": run.digest,
        "precision": config.trainer.precision,
        "world_size": config.trainer.devices,
    }
    origin = provenance(str(choose_device(config.trainer, 0)), arguments=["run.py", *words])
    write_record(run.folder, new_record("failed", error=sentence, **facts, **origin))


def main(sentence: str, *words: str) -> int:
    try:
        record_lost(compose_config(CONF, words), sentence, list(words))
    except CuttlefishError:  # what kept the job from beginning has been said by the job
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
