"""The time that the benches and profiles in a claim's command took when last measured."""

import shlex
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from cuttlefish.display.format import rough
from cuttlefish.evidence.benches import Bench, newest


def bench_costs(command: str, benches: Sequence[Bench]) -> list[str]:
    """Return `bench of steps: about 5 min on …` for each bench in the command."""
    words = shlex.split(command, comments=True)
    on_cpu = "cuda" not in words
    return [
        _cost(name, _last(benches, facts, on_cpu) or _last(benches, facts, not on_cpu), on_cpu)
        for name, facts in _made(words)
    ]


def _made(words: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the label of each bench, and the facts that identify it."""
    for place, word in enumerate(words):
        behind = words[place + 1 :]
        if word == "scripts.bench":
            for what in takewhile(str.isalnum, behind):
                yield f"bench of {what}", {"what": what}
        elif word == "scripts.profile_layers":
            model = behind[behind.index("--model") + 1]
            yield f"profile of {model}", {"what": "profile", "profiled": behind[0], "model": model}


def _last(benches: Sequence[Bench], facts: dict[str, Any], on_cpu: bool) -> Bench | None:
    return newest([bench for bench in benches if bench.on_cpu == on_cpu], **facts)


def _cost(name: str, bench: Bench | None, on_cpu: bool) -> str:
    """Return the cost in words, from the rounds if the bench recorded no total time."""
    whole = bench.facts.get("seconds") if bench else None
    rounds = sum(sum(row.get("rounds_s") or []) for row in bench.rows) if bench else None
    if bench is None or not (whole or rounds):
        return f"{name}: not timed, under 1 MiB of disk"
    took = f"about {rough(whole)}" if whole else f"at least {rough(rounds)}"
    elsewhere = "" if bench.on_cpu == on_cpu else "not timed on a GPU; "
    batch = f", batch {bench.facts['batch']}" if "batch" in bench.facts else ""
    return f"{name}: {elsewhere}{took} on {bench.facts['hardware']}{batch}, under 1 MiB of disk"
