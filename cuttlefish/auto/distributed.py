"""What is measured is decided on the first process."""

from typing import Any

from torch import distributed


def from_first_process(value: Any) -> Any:
    """Return the first process's value on every process of the default group, if there is one."""
    if (
        not distributed.is_available()
        or not distributed.is_initialized()
        or distributed.get_world_size() == 1
    ):
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
