"""Estimate the device time and disk space needed to decide a claim, with the source of the estimate."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from cuttlefish.display.format import counted, memory, rough
from cuttlefish.evidence.admission import PAPER_EPOCHS, why_not_evidence
from cuttlefish.evidence.benches import Bench, newest
from cuttlefish.evidence.records import Evidence
from cuttlefish.evidence.selection import Where, at_scale, points_of, select
from cuttlefish.evidence.step_times import IMAGES, dense_epoch
from cuttlefish.planning.lengths import lengths
from cuttlefish.planning.spec import Scale
from cuttlefish.report.claims.bench_cost import bench_costs
from cuttlefish.report.claims.rules.case import NETWORK

COPIES = 7
"""Copies of the float32 parameters on disk: weights and momentum in the last two checkpoints and in the one
before the switch, and the final weights."""
FILES = 2 * 2**20
"""Bytes of a run's other files: plots, W&B's copies of them, tables and logs."""
STATED = "readme-compute"
"""The claim with the only known run time on the paper's GPU: a run of PAPER_EPOCHS."""


class Costs:
    """Cost estimates. runs: every record, finished or not."""

    def __init__(
        self,
        runs: Sequence[Evidence],
        benches: Sequence[Bench],
        claims: Sequence[Mapping[str, Any]],
        scales: Mapping[str, Scale],
    ):
        self._runs, self._benches, self._scales = runs, benches, scales
        self._timed = [run for run in runs if run.finished and not why_not_evidence(run.record)]
        self._stated = next(
            (claim["value"] / PAPER_EPOCHS["cifar10"][0] for claim in claims if claim["id"] == STATED), None
        )

    def of(self, rule: Any, scale: str, needs: int, command: str) -> str:
        """Return `5 runs in all (2 missing), about 2 h on …, going by 3 finished runs of …; about 96 MiB …`.

        Args:
            rule, needs: Of the claim; its arms are the runs, as far as the scale has them.
            command: Decides the claim, and names the benches.
        """
        there = self._scales.get(scale, Scale())
        asked = {repr(arm): at_scale(arm, scale) for arm in arms_of(rule) if not there.left_out(arm)}
        arms = list(asked.values())
        of_runs = self._of_runs(arms, scale, needs) if arms else []
        return "; ".join([*of_runs, *bench_costs(command, self._benches)])

    def _of_runs(self, arms: list[Where], scale: str, needs: int) -> list[str]:
        total = needs * len(arms)
        missing = sum(
            max(needs - len({run.record.seed for run in select(self._timed, arm, scale)}), 0) for arm in arms
        )
        epochs = [needs * length for length in lengths(arms, scale, self._scales)]
        like = [(arm, length, self._like(arm, scale)) for arm, length in zip(arms, epochs, strict=True)]
        timed = [(length, runs) for _, length, runs in like if runs]
        untimed = [(arm, length) for arm, length, runs in like if not runs]
        words = [f"{counted(total, 'run')}{f' in all ({missing} missing)' if 0 < missing < total else ''}"]
        words += [_as_measured(timed)] if timed else []
        words += [self._as_stated(untimed, scale)] if untimed else []
        sizes = [self._params(arm, scale) for arm in arms]
        room = sum(needs * (4 * COPIES * size + FILES) for size in sizes if size)
        return [", ".join(words), *([f"about {memory(room)} of disk"] if all(sizes) else [])]

    def _as_stated(self, untimed: list[tuple[Where, int]], scale: str) -> str:
        """Estimate untimed runs from the paper's epoch time and from this suite's measured steps."""
        epochs = sum(length for _, length in untimed)
        words = f"{epochs:,} epochs not yet timed here"
        if scale != "paper":
            return words
        known = []
        if self._stated and all(arm.get("data") in IMAGES for arm, _ in untimed):
            of_one = f"{self._stated:.1f} s an epoch of ResNet-18, by its README"
            known += [f"about {rough(epochs * self._stated)} on the paper's GPU ({of_one})"]
        dense = [dense_epoch(self._benches, arm.get("model"), arm.get("data")) for arm, _ in untimed]
        if all(dense):
            seconds = sum(length * found[0] for (_, length), found in zip(untimed, dense, strict=True))
            bench = dense[0][1]
            step = f"every step as a dense one of {bench.name}"
            known += [f"{rough(seconds)} on {bench.facts['hardware']} ({step})"]
        return f"{words}: {' or '.join(known)}" if known else words

    def _like(self, arm: Where, scale: str) -> list[Evidence]:
        """Return the scale's runs of model and data on the latest hardware; of the method, if any are."""
        of_model = select(self._timed, {name: arm.get(name) for name in NETWORK}, scale)
        like = [run for run in of_model if run.record.method == arm.get("method")] or of_model
        last = max(like, key=lambda run: run.record.started, default=None)
        return [run for run in like if run.hardware == last.hardware] if last else []

    def _params(self, arm: Where, scale: str) -> float | None:
        """Return full-rank parameters from any record of the scale, or at full width from a bench."""
        model = arm.get("model")
        records = [run.record for run in self._runs]
        sizes = [one.params_full for one in records if (one.scale, one.model) == (scale, model)]
        methods = newest(self._benches, "methods") if scale == "paper" else None
        rows = methods.find(model=model, baseline=True) if methods else []
        return next(filter(None, [*sizes, *(row.get("params_nonzero") for row in rows)]), None)


def _as_measured(timed: list[tuple[int, list[Evidence]]]) -> str:
    seconds = sum(length * median(map(_epoch, runs)) for length, runs in timed)
    sources = [run.record for run in {id(run): run for _, runs in timed for run in runs}.values()]
    devices, models = (
        " and ".join(sorted({getattr(record, name) for record in sources})) for name in ("device", "model")
    )
    runs = counted(len(sources), "finished run")
    return f"about {rough(seconds)} on {devices}, going by {runs} of {models}"


def _epoch(run: Evidence) -> float:
    return run.record.wall_seconds / run.record.epochs_trained


def arms_of(rule: Any) -> Iterator[Where]:
    """Return every description of runs in a rule: each mapping that names a method."""
    if isinstance(rule, Mapping):
        if "method" in rule:
            yield rule
        for name, value in rule.items():
            yield from arms_of(
                [point for family in value for point in points_of(family)] if name == "grid" else value
            )
    elif isinstance(rule, list):
        for value in rule:
            yield from arms_of(value)
