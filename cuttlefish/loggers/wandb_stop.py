"""The end of an online W&B run whose process has been asked to stop: its server gets a few seconds, and the run's file stays whole."""

import os
import struct
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

BLOCK, HEADER = 32768, struct.Struct("<IHB")
"""The run file is a log in LevelDB's format: blocks of chunks, each with (checksum, length, kind) ahead of it."""
FILE_HEADER = b":W&B\xe1\xbe\x00"
"""What it begins with, the version of its format last."""
LAST_CHUNKS = 1, 4
"""The kinds that end a record: whole, and last."""


def finish_within(seconds: float, run: Any, exit_code: int) -> None:
    """As `run.finish`, whose own time-out was fixed when the run began.

    Raises TimeoutError if the server has not taken everything by then; what was logged is in the run's file, for `wandb sync`.
    """
    # W&B's process writes blocks that are full, and the others every quarter of a minute: this fills those with what came before it.
    run.summary["_filled"] = " " * (2 * BLOCK)
    del run.summary["_filled"]
    ended: Future[None] = Future()

    def finish() -> None:
        try:
            ended.set_result(run.finish(exit_code=exit_code))
        except BaseException as error:
            ended.set_exception(error)

    Thread(target=finish, name="wandb finish", daemon=True).start()
    try:
        ended.result(seconds)
    except TimeoutError:
        raise TimeoutError("the server did not take everything in time") from None
    finally:
        if not ended.done():
            abandon_service()
            for path in Path(run.dir).parent.glob("*.wandb"):
                cut_torn_record(path)


def abandon_service() -> None:
    """End W&B's process at once, which would keep this one from exiting until the server has answered. The next run starts another."""
    import wandb
    from wandb.sdk.wandb_setup import singleton

    with suppress(AttributeError):  # there is none, or not there in this version: then its own time-outs hold
        singleton()._connection._proc._process.kill()
        singleton()._connection._proc.join()
        with suppress(Exception, SystemExit):
            wandb.teardown()


def cut_torn_record(path: Path) -> None:
    """Cut a run file back to its last whole record: `wandb sync` takes one that ends in a torn one for a run that still goes on.

    A file of a format that is not known here is left as it is."""
    content = path.read_bytes()
    if not content.startswith(FILE_HEADER):
        return
    at = whole = len(FILE_HEADER)
    while at + HEADER.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < HEADER.size:  # too little for a chunk: the rest of the block is empty
            at += left
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + length
        if kind in LAST_CHUNKS and at <= len(content):
            whole = at
    os.truncate(path, whole)
