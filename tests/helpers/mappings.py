"""Nested mappings, as configs are."""

from typing import Any


def with_value(mapping: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Set `mapping["a"]["b"]` for the path a.b, in place; return the mapping."""
    *above, last = path.split(".")
    section = mapping
    for name in above:
        section = section.setdefault(name, {})
    section[last] = value
    return mapping
