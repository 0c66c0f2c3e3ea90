"""Work on layers side by side: that on one hardly gets faster by a second thread, but two layers do."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(work: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """Yield work(*task) of each task in order, on as many threads as torch has, with one of torch's in each.

    Results do not depend on the number of threads. Tasks are drawn in the calling thread, at most two a
    thread ahead, lest all lie in memory at once.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from (work(*task) for task in tasks)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for task in tasks:
                waiting.append(pool.submit(work, *task))
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)
