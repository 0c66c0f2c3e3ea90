"""The record of a run whose process was killed before it could leave one.

    python -m cuttlefish.lost "what ended it" model=... data=... seed=0
"""

from __future__ import annotations

import sys
from pathlib import Path

from cuttlefish.compose import compose_config
from cuttlefish.errors import CuttlefishError
from cuttlefish.worker import identify, record_failure

CONF = Path(__file__).resolve().parents[1] / "conf"


def main(sentence: str, *words: str) -> int:
    try:
        run = identify(compose_config(CONF, words))
        record_failure(run, CuttlefishError(sentence), run.config.trainer.devices, ["run.py", *words])
    except CuttlefishError:  # what kept the job from beginning has been said by the job
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
