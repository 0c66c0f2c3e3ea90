"""Train the configs of a folder in their order, several at once; runs that are finished are passed over.

    python -m scripts.slice.pool runs/gpu-slice/configs/small --jobs 10

They share the device, so their times are no evidence. A stop signal goes to every run, which saves its state.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuttlefish.errors import EXIT_SAVED
from scripts.command import new_parser


def train(config: Path, stopped: threading.Event) -> int:
    """Train one config and return its worker's exit code; print its last line where it failed."""
    if stopped.is_set():
        return EXIT_SAVED
    began, command = time.monotonic(), [sys.executable, "-m", "cuttlefish.worker", str(config)]
    # in this process group: a stop signal to the group reaches the worker itself
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1] if done.returncode else ""
    print(f"{config.stem}: exit code {done.returncode}, {time.monotonic() - began:.0f} s {last}", flush=True)
    return done.returncode


def main(arguments: list[str] | None = None) -> int:
    parser = new_parser("slice.pool", __doc__)
    parser.add_argument("configs", type=Path)
    parser.add_argument("--jobs", type=int, default=10)
    options = parser.parse_args(arguments)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    configs = sorted(options.configs.glob("*.json"))
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda config: train(config, stopped), configs))
    ended = {code: codes.count(code) for code in sorted(set(codes))}
    print(json.dumps({"runs": len(configs), "ended with": ended}), flush=True)
    return max((code for code in codes if code), default=0) if EXIT_SAVED not in codes else EXIT_SAVED


if __name__ == "__main__":
    sys.exit(main())
