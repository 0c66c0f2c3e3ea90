"""The fields of `record.json` as a frozen `Record`."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict, with_config
from typing_extensions import TypedDict

SCHEMA = 1
LARGEST = 2**63

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Int = Annotated[int, Strict(), Field(lt=LARGEST)]
Whole = Annotated[Int, Field(gt=-LARGEST)]
Count = Annotated[Int, Field(ge=0)]
Rank = Annotated[Int, Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Amount = Annotated[Number, Field(ge=0)]
Bounded = Annotated[Number, Field(gt=-LARGEST, lt=LARGEST)]
Seconds = Annotated[Number, Field(ge=0, lt=LARGEST)]
Share = Annotated[Number, Field(ge=0, le=1)]
Mapped = dict[str, Any]


@with_config(extra="allow")
class Schedule(TypedDict, total=False):
    milestones: list[Share] | None


@with_config(extra="allow")
class Recipe(TypedDict, total=False):
    schedule: Schedule | None


@with_config(extra="allow")
class Settings(TypedDict, total=False):
    """Keys in a record's config that its readers rely on."""

    model: Mapped | None
    data: Mapped | None
    recipe: Recipe | None
    method: Mapped | None
    trainer: Mapped | None


def _field(needed: str, default: Any = None) -> Callable[[str], Any]:
    return lambda meaning: field(default=default, metadata={"needed": needed, "meaning": meaning})


_always, _finished, _known = map(_field, ("always", "finished", "where known"))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result and provenance of one run. Each field has a type, when it is required, and a meaning.

    The constructor checks nothing, so that every run that ends can be recorded. `problems_of` checks.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schema: Whole = _field("always", SCHEMA)("version of this list")
    status: Text = _always("finished, failed or interrupted")
    error: Text | None = _known("the traceback of a failed run")
    run_key: Text = _always("hash of everything that changes the result")
    model: Text = _always("name")
    data: Text = _always("name")
    method: Text = _always("name")
    recipe: Text = _always("name")
    preset: Text | None = _known("the method's preset: reference, paper, …")
    seed: Whole = _always("")
    epochs: Count = _always("epochs of the recipe")
    scale: Text = _always("what the run may stand for: smoke, reduced, paper or free")
    experiment_name: Text | None = _known("the table or figure it was run for")
    forked_from: Text | None = _known("run key of the run whose state this one started from")
    target: Mapped | None = _known("what a size-matched method was to meet, and where that came from")
    config: Settings | None = _known("the resolved config, without secrets and folders")
    epochs_trained: Count | None = _finished("over all phases, from scratch")
    phases: list[Mapped] | None = _finished("one mapping a phase: name, epochs, seconds, …")
    accuracy_final: Amount | None = _known("of the last epoch, percent: the headline")
    accuracy_best: Amount | None = _known("of the best epoch, chosen on the evaluated set, percent")
    metric: Text | None = _known("name of the headline metric; accuracy where there is none")
    metrics: dict[str, Bounded] | None = _known("every metric of the last epoch by name")
    metrics_best: dict[str, Bounded] | None = _known("the best of each metric, chosen on the evaluated set")
    loss_final: Number | None = _known("of the last epoch, on the evaluated set")
    params_full: Count | None = _finished("all parameters of the full-rank model")
    params_total: Count | None = _finished("all parameters, frozen ones too")
    params_trainable: Count | None = _finished("")
    params_nonzero: Count | None = _finished("")
    params_stored_bits: Count | None = _finished("bits to store the model")
    gradient_bytes_full: Count | None = _known("of a step at full rank: what several processes all-reduce")
    gradient_bytes_final: Count | None = _known("the same at the end")
    macs_full: Count | None = _finished("multiply-accumulates of one example through the full-rank model")
    macs_final: Count | None = _finished("the same at the end")
    switch_epoch: Count | None = _known("E: full-rank epochs before the switch")
    switch_step: Count | None = _known("full-rank optimizer steps before the switch")
    switch_reason: Text | None = _known("why the model was switched then, or never")
    k: Count | None = _known("K: leading layers left full-rank")
    ranks: dict[str, Rank] | None = _known("factorized layer -> rank")
    on_floor: list[Text] | None = _known("factorized layers whose rank is the floor's, where there is one")
    profile: Mapped | None = _known("summary of profile.json")
    compute_seconds: Amount | None = _finished(
        "device time of all training work and the method's own, all phases"
    )
    wall_seconds: Amount | None = _finished("everything, work lost to crashes too")
    seconds: dict[str, Seconds] | None = _finished("by part")
    peak_memory_bytes: Count | None = _known("of the device")
    device: Text = _always("the hardware's name")
    device_type: Text | None = _known("cpu, cuda, …; of an older record by its device's name")
    precision: Text = _always("fp32, tf32, bf16 or fp64")
    threads: Count | None = _known("CPU threads torch computes with")
    world_size: Count = _always("processes")
    git_commit: Text | None = _known("")
    git_dirty: Flag | None = _known("whether the code differed from that commit")
    packages: Mapped = _always("name -> version")
    platform: Text | None = _known("operating system")
    python: Text | None = _known("version")
    data_digest: Text = _always("hash of the data files' content")
    revisions: dict[str, Text] | None = _known("repository on the hub -> commit read: weights, data")
    command: Text = _always("as typed, without secrets and folders")
    started: Text = _always("ISO 8601, UTC")
    extra: Mapped | None = _known("a method's own fields")

    def __post_init__(self) -> None:
        if self.device_type is None and isinstance(self.device, str):
            object.__setattr__(self, "device_type", device_type_of(self.device))

    @property
    def headline(self) -> str:
        """Name of the headline metric."""
        return self.metric or "accuracy"

    @property
    def score(self) -> float | None:
        """The headline metric of the last epoch."""
        return self.accuracy_final if self.headline == "accuracy" else (self.metrics or {}).get(self.metric)

    @property
    def score_best(self) -> float | None:
        """The headline metric of the best epoch, chosen on the evaluated set."""
        return (
            self.accuracy_best if self.headline == "accuracy" else (self.metrics_best or {}).get(self.metric)
        )

    @property
    def on_cpu(self) -> bool:
        return self.device_type == "cpu"


def device_type_of(name: str) -> str:
    """Return cpu or cuda for a hardware name from `device_name`: a CPU's ends with its number of cores."""
    return "cpu" if re.search(r", \d+ cores?$", name) else "cuda"


FIELDS = {one.name: one for one in fields(Record)}
