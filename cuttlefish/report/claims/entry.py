"""What an entry of claims.yaml may hold; the head of that file says what each key means."""

from dataclasses import dataclass, field
from typing import Any, Literal

Rule = dict[str, Any]
Text = dict[str, str]
"""One text a scale."""


@dataclass(frozen=True)
class Seeds:
    paper: int
    reduced: int


@dataclass(frozen=True)
class Entry:
    """Only to be checked against: whoever reads the claims reads the file's own mappings."""

    id: str
    what: str
    source: str
    reach: Literal["here", "fp32", "absolute", "imagenet"]
    seeds: Seeds
    rule: Rule | list[Rule]
    reduced_rule: Rule | list[Rule] | None = None
    value: float | None = None
    accept: str | tuple[float, float] | None = None
    reduced: str | None = None
    note: str | None = None
    run: Text | None = None
    arms: Text | None = None
    largest_of: list[str] = field(default_factory=list)
