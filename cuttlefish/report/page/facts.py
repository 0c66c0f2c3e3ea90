"""Lists of names and values, built in Python and cached because thousands of pages share many pairs."""

from collections.abc import Iterable
from functools import lru_cache
from html import escape

from markupsafe import Markup


def fact_list(rows: Iterable[tuple[str, str] | tuple[str, str, bool]], look: str = "") -> Markup:
    """Return HTML with escaped text. rows: (name, value) or (name, value, whether to highlight it)."""
    return Markup(f'<dl class="facts {look}">{"".join([_fact(*row) for row in rows])}</dl>')


@lru_cache(maxsize=20_000)
def _fact(name: str, value: str, differs: bool = False) -> str:
    look = ' class="differs"' if differs else ""
    return f"<div{look}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
