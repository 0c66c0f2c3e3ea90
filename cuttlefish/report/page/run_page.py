"""The page of one run: its results, progress and origin."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cuttlefish.config.resolved import in_present_words
from cuttlefish.display.stack_rows import unit_of
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence
from cuttlefish.record.atomic import read_regular
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import LOG, checked_ranks, read_profile
from cuttlefish.record.redact import redact_text
from cuttlefish.report.page.pages import render
from cuttlefish.report.page.run_rows import (
    config_rows,
    fact_list,
    profile_rows,
    rank_rows,
    result_rows,
    shown,
)

ORIGIN = (
    "git_commit", "git_dirty", "command", "started", "device", "precision", "threads", "world_size",
    "platform", "python", "data_digest", "forked_from",
)  # fmt: skip
LOG_LINES = 60


@dataclass(frozen=True)
class Link:
    text: str
    href: str


@dataclass(frozen=True)
class RunView:
    """A run and what the rest of the report shows of it.

    Attributes:
        name: File name of its page.
        source: Its record's path under the folder of records.
        siblings: Other runs of its cell.
        cited: Where its numbers are used.
        pictures: Caption and address of each of its plots.
    """

    run: Evidence
    name: str
    source: str = ""
    siblings: list[Link] = field(default_factory=list)
    cited: list[Link] = field(default_factory=list)
    pictures: list[Link] = field(default_factory=list)


def run_page(view: RunView) -> str:
    """Return HTML; damaged files beside the record are named on the page and left out."""
    record = view.run.record
    parts, problems = _read_beside(record, view.run.path.parent)
    origin = (
        {name.replace("_", " "): shown(getattr(record, name)) for name in ORIGIN}
        | dict(record.packages)
        | {"record": view.source}
    )
    return render(
        "run.html", view=view, record=record, title=title_of(record), problems=problems,
        result=fact_list(result_rows(record)),
        config=fact_list(config_rows(in_present_words(record.config or {})), "config"),
        origin=fact_list((str(name), shown(value)) for name, value in origin.items()),
        cited=_links(view.cited), siblings=_links(view.siblings), pictures=view.pictures, **parts,
    )  # fmt: skip


def _links(links: Sequence[Link]) -> Markup:
    return Markup(", ".join([_link(link) for link in links]))


@lru_cache(maxsize=20_000)
def _link(link: Link) -> str:
    return f'<a href="{escape(link.href)}">{escape(link.text)}</a>'


def title_of(record: Record) -> str:
    return f"{record.model} on {record.data} · {record.method} · seed {record.seed}"


def _read_beside(record: Record, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the parts made from the files beside a record, and a sentence for each damaged file."""
    ranks, damage = checked_ranks(folder)
    parts: dict[str, Any] = {"profile": None}
    problems = [f"ranks: {damage}"] if damage else []
    makers = {
        "profile": lambda: read_profile(folder),
        "log": lambda: log_tail(folder),
        "ranks": lambda: rank_rows(record, ranks, parts["profile"]),
        "stacks": lambda: profile_rows(parts["profile"]) if parts["profile"] else [],
        "unit": lambda: unit_of(parts["profile"] or {}),
    }
    for name, make in makers.items():
        try:
            parts[name] = make()
        except (CuttlefishError, OSError) as error:
            problems.append(f"{name}: the file beside the record cannot be read ({_named(error)})")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problems.append(f"{name}: left out, for the rows beside the record do not fit ({_named(error)})")
    return {name: parts.get(name) for name in makers}, problems


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def log_tail(folder: Path) -> str:
    path = folder / LOG
    lines = read_regular(path).decode(errors="replace").splitlines() if path.exists() else []
    return redact_text("\n".join(lines[-LOG_LINES:]))
