"""debug=profile: a torch profiler trace of the first steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

SKIPPED, TRACED = 2, 3


@contextmanager
def first_steps(wanted: bool, folder: Path) -> Iterator[Callable[[], None]]:
    """Yields what to call after each step; writes `folder`/trace.json (Chrome's format) and a table of operators, once."""
    if not wanted or (folder / "trace.json").exists():
        yield lambda: None
        return

    def write(traced: profile) -> None:
        traced.export_chrome_trace(str(folder / "trace.json"))
        order = (
            "self_cuda_time_total"
            if ProfilerActivity.CUDA in supported_activities()
            else "self_cpu_time_total"
        )
        (folder / "operators.txt").write_text(traced.key_averages().table(sort_by=order, row_limit=30))

    plan = schedule(wait=0, warmup=SKIPPED, active=TRACED, repeat=1)
    with profile(activities=list(supported_activities()), schedule=plan, on_trace_ready=write) as traced:
        yield traced.step
