"""Ranges of settings, declared in the fields' annotations. Needs only the standard library.

    @dataclass(frozen=True)
    class Settings(Checked):
        ratio: Annotated[float, Within(0, 1, "()")] = 0.25

        def contradictions(self):
            if self.ratio > 0.5 and self.fast:
                yield "ratio above 0.5 cannot be fast"

`Settings(ratio=2).check()` raises a CuttlefishError. `cuttlefish.config.validate` calls it for whole configs,
after checking their types.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from numbers import Integral, Real
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cuttlefish.errors import CuttlefishError


class Limit:
    """A constraint on a value besides its type. None always passes."""

    def problems(self, value: Any, where: str) -> Iterator[str]:
        """Yield a sentence for each problem with the value of the key `where`."""
        if not self.allows(value):
            yield f"{where} must be {self}, not {shown(value)}"

    def allows(self, value: Any) -> bool:
        raise NotImplementedError


@dataclass(frozen=True)
class Within(Limit):
    """A finite number from `low` to `high`; a round bracket in `ends` excludes that end."""

    low: float = -inf
    high: float = inf
    ends: str = "[]"

    def allows(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or value in (inf, -inf):
            return False
        inside = self.low < value < self.high
        return (
            inside
            or (value == self.low and self.ends[0] == "[")
            or (value == self.high and self.ends[1] == "]")
        )

    def __str__(self) -> str:
        if self.high == inf:
            return f"at least {self.low}" if self.ends[0] == "[" else f"above {self.low}"
        high = "2**32" if self.high == 2**32 else self.high
        return f"in {self.ends[0]}{self.low}, {high}{self.ends[1]}"


@dataclass(frozen=True)
class Each(Limit):
    """A limit for every item of a list or every value of a mapping."""

    limit: Limit

    def problems(self, value: Any, where: str) -> Iterator[str]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.limit.problems(item, f"{where}.{key}")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for index, item in enumerate(value):
                yield from self.limit.problems(item, f"{where}[{index}]")
        else:
            yield f"{where} must be a list or a mapping, not {shown(value)}"


@dataclass(frozen=True)
class Count(Limit):
    """A list with a fixed number of values."""

    count: int

    def problems(self, value: Any, where: str) -> Iterator[str]:
        if len(value) != self.count:
            yield f"{where} must be a list of {self.count}, not {len(value)}"


@dataclass(frozen=True)
class Name(Limit):
    """A label usable in file names: not empty, one line, at most `size` bytes."""

    size: int = 100

    def allows(self, value: Any) -> bool:
        return isinstance(value, str) and 0 < _size(value) <= self.size and value.isprintable()

    def __str__(self) -> str:
        return f"a name of 1 to {self.size} bytes without control characters"


@dataclass(frozen=True)
class Place(Limit):
    """A path valid on common file systems: at most 255 bytes per part and 4,000 in total."""

    def allows(self, value: Any) -> bool:
        if (
            not isinstance(value, str)
            or not value
            or any(letter < " " or letter == "\x7f" for letter in value)
        ):
            return False
        return _size(value) <= 4000 and all(_size(part) <= 255 for part in PurePath(value).parts)

    def __str__(self) -> str:
        return "a path that is not empty, of printable names of at most 255 bytes"


@dataclass(frozen=True)
class OptionsOf:
    """Mark a mapping of some fields of the class `kind` (see `cuttlefish.config.validate`)."""

    kind: type


class Checked:
    """Base of all settings dataclasses: checks the fields' limits and contradictions between them."""

    def contradictions(self) -> Iterator[str]:
        """Yield a sentence, beginning with a field's name, for each set of contradictory values."""
        return iter(())

    def outside(self, epochs: int) -> Iterator[str]:
        """Yield a sentence, beginning with a field's name, for each value outside a run of so many epochs."""
        return iter(())

    def check(self, where: str = "", contradictions: bool = True) -> None:
        """Raise CuttlefishError for the first broken limit or contradiction.

        Args:
            where: Dotted key of the settings in the config.
            contradictions: Also check for contradictions.
        """
        problem = next(self.problems(where, contradictions), None)
        if problem is not None:
            raise CuttlefishError(problem)

    def problems(self, where: str = "", contradictions: bool = True) -> Iterator[str]:
        """Yield sentences for all broken limits, then all contradictions, including nested settings."""
        prefix = f"{where}." if where else ""
        for name, (kind, limits) in _limits(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, Checked):
                yield from value.problems(f"{prefix}{name}", contradictions)
            elif not fits(value, kind):
                yield f"{prefix}{name} must be {describe(kind)}, not {shown(value)}"
            elif value is not None:
                for limit in limits:
                    yield from limit.problems(value, f"{prefix}{name}")
        if contradictions:
            yield from (f"{prefix}{sentence}" for sentence in self.contradictions())


def shown(value: Any) -> str:
    """Return a value as written in YAML or Python, cut to 60 characters."""
    words = {None: "null", True: "true", False: "false"}
    try:
        text = words[value] if value is None or isinstance(value, bool) else repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python prints
        text = "something too long to show"
    return text if len(text) <= 60 else f"{text[:57]}..."


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value has an annotation's type; integers pass as floats, tuples as lists."""
    arms, origin, inner = arms_of(kind), get_origin(kind), get_args(kind)
    if len(arms) > 1 or arms[0] is not kind:
        return any(fits(value, arm) for arm in arms)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in inner)
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(item, inner[1]) for item in value.values())
    if origin in (list, tuple):
        inner = inner if origin is tuple and Ellipsis not in inner else inner[:1] * _length(value)
        whole = isinstance(value, list | tuple) and len(value) == len(inner)
        return whole and all(map(fits, value, inner))
    if kind is Any or not isinstance(kind, type):
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {int: Integral, float: Real}.get(kind, kind))


def describe(kind: Any) -> str:
    """Return an annotation in words, to complete the sentence `… must be …`."""
    arms = sorted(arms_of(kind), key=lambda arm: arm is NoneType)
    if len(arms) > 1:
        return " or ".join(describe(arm) for arm in arms)
    kind, origin, inner = arms[0], get_origin(arms[0]), get_args(arms[0])
    if origin is Literal:
        return inner[0] if len(inner) == 1 else f"one of {', '.join(map(str, inner))}"
    if origin is tuple and Ellipsis not in inner:
        return f"a list of {len(inner)}"
    if origin in (list, tuple):
        return f"a list (each {describe(inner[0])})"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        NoneType: "null",
    }
    return names.get(kind, "a mapping")


def arms_of(kind: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union annotation, else the annotation itself."""
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


@lru_cache
def _limits(cls: type) -> dict[str, tuple[Any, list[Limit]]]:
    """Return each field's annotation and its limits."""
    found = {}
    for name, kind in get_type_hints(cls, include_extras=True).items():
        arms = [arm for arm in arms_of(kind) if arm is not NoneType]
        marks = [
            *getattr(kind, "__metadata__", ()),
            *(getattr(arms[0], "__metadata__", ()) if len(arms) == 1 else ()),
        ]
        found[name] = kind, [mark for mark in marks if isinstance(mark, Limit)]
    return found


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else 0


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
