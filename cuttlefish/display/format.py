"""Format numbers for people; unknown values become a dash."""

from typing import Any

UNKNOWN = "–"
EIGHTHS = " ▏▎▍▌▋▊▉█"


def printable(text: str) -> str:
    """Return untrusted text without escape codes and other unprintable characters, keeping its lines."""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def one_line(text: str) -> str:
    """Return untrusted text as one printable line with single spaces."""
    return printable(" ".join(text.split()))


def count(number: float | None) -> str:
    """Format a count: `702,618`."""
    return UNKNOWN if number is None else f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """Format a count with its noun: `1 run`, `3 runs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def number(value: float | None) -> str:
    """Format at least three significant digits: `10.8`, `0.00446`, `500,000`."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"


def stated(value: float | None) -> str:
    """Format a number of the paper as printed there: `94.66`, `2,700,000`."""
    return UNKNOWN if value is None else f"{value:,.12g}"


def short_count(number: float | None) -> str:
    """Format three digits and a unit: `11.2 M`."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float | None) -> str:
    """Format a duration: `0.42 s`, `17 min 05 s`, `3 h 20 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def rough(seconds: float) -> str:
    """Format an estimated duration: `40 s`, `54 min`, `1,128 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.0f} h"


def percent(value: float | None) -> str:
    """Format a value already in percent: `78.93 %`."""
    return UNKNOWN if value is None else f"{value:.2f} %"


def scored(metric: str, value: float | None) -> str:
    """Format a value of a metric: `78.93 %` of accuracy, `f1 84.27` of another one."""
    return percent(value) if metric == "accuracy" or value is None else f"{metric} {number(value)}"


def memory(size: float | None) -> str:
    """Format bytes: `1.53 GiB`."""
    if size is None:
        return UNKNOWN
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def times(ratio: float | None) -> str:
    """Format a factor: `3.72×`."""
    return UNKNOWN if ratio is None else f"{ratio:.3g}×" if ratio >= 100 else f"{ratio:.2f}×"


def ratio_of(larger: float | None, smaller: float | None) -> float | None:
    """Return larger / smaller; None if either is unknown or the ratio does not exist."""
    return larger / smaller if larger is not None and smaller else None


def bar(share: float, width: int = 10) -> str:
    """Return a horizontal bar of `share` (0 to 1) in eighths of a character."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(width)


def named(values: dict[str, Any]) -> str:
    """Join the known values with their names: `a 1 · b 2`."""
    return " · ".join(f"{name} {value}" for name, value in values.items() if value not in (None, UNKNOWN))
