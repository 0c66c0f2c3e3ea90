"""The entries of claims.yaml, whose header explains each key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cuttlefish.config.validate import convert
from cuttlefish.errors import CuttlefishError

Rule = dict[str, Any]
Text = dict[str, str]
"""One text per scale."""
Claim = Mapping[str, Any]


@dataclass(frozen=True)
class Seeds:
    paper: int
    reduced: int


@dataclass(frozen=True)
class Entry:
    """Schema of an entry, used only for validation: readers of claims use the file's own mappings."""

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


def load_claims(path: str | Path) -> list[Claim]:
    """Read the entries of claims.yaml.

    Raises:
        CuttlefishError: The file or an entry cannot be judged: an unknown key, a value of another type, a
            largest value over claims without a number.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CuttlefishError(f"There are no claims at {path}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise CuttlefishError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, list):
        raise CuttlefishError(f"{path} should be a list of claims, not a {type(content).__name__}.")
    ids = [_checked_id(entry, path) for entry in content]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise CuttlefishError(f"{path} has several claims {twice[0]}.")
    _check_largest(content, path)
    return content


def _checked_id(entry: Any, path: str | Path) -> str:
    name = entry.get("id", "a claim") if isinstance(entry, dict) else "a claim"
    return convert(entry, Entry, f"{path}: {name}").id


def _check_largest(claims: Sequence[Claim], path: str | Path) -> None:
    """Raise CuttlefishError if a claim is the largest of claims of which one has no number to compare."""
    numeric = {claim["id"] for claim in claims if "value" in claim and isinstance(claim.get("accept"), list)}
    for claim in claims:
        lacking = {claim["id"], *claim["largest_of"]} - numeric if claim.get("largest_of") else ()
        if lacking:
            raise CuttlefishError(
                f"{path}: {claim['id']} is the largest of claims, of which {min(lacking)} has no value with "
                "an accepted range."
            )
