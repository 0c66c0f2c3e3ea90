"""What an offline W&B run file holds: frames of the LevelDB log format around protobuf messages."""

import json
import struct
import time

BLOCK, HEADER = 32768, 7


def read_run_file(path):
    from wandb.proto import wandb_internal_pb2

    data, at, message = path.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        message += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record


def finished_run(path, seconds=20.0):
    """The records of a run file; W&B's own process may still be writing when `finish` returns."""
    until = time.monotonic() + seconds
    while True:
        records = list(read_run_file(path))
        if any(record.HasField("exit") for record in records) or time.monotonic() > until:
            return records
        time.sleep(0.1)


def run_of(records):
    return next(record.run for record in records if record.HasField("run"))


def history_of(records):
    return [items(record.history.item) for record in records if record.HasField("history")]


def summary_of(records):
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    return summary


def items(entries):
    return {"/".join(entry.nested_key) or entry.key: json.loads(entry.value_json) for entry in entries}
