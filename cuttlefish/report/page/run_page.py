"""The page of one run: its results, progress and origin."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from typing import Any

from markupsafe import Markup

from cuttlefish.config.resolved import in_present_words
from cuttlefish.display.stack_rows import unit_of
from cuttlefish.evidence.records import Evidence
from cuttlefish.record.fields import Record
from cuttlefish.report.page.facts import fact_list
from cuttlefish.report.page.pages import render
from cuttlefish.report.page.run_files import Files, read_files
from cuttlefish.report.page.run_rows import config_rows, profile_rows, rank_rows, result_rows, shown

ORIGIN = (
    "git_commit", "git_dirty", "command", "started", "device", "precision", "threads", "world_size",
    "platform", "python", "data_digest", "forked_from",
)  # fmt: skip


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
    files = read_files(view.run.path.parent)
    parts, problems = _drawn(record, files)
    origin = (
        {name.replace("_", " "): shown(getattr(record, name)) for name in ORIGIN}
        | dict(record.packages)
        | {"record": view.source}
    )
    return render(
        "run.html", view=view, record=record, title=title_of(record), files=files,
        problems=[*files.problems, *problems],
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


def _drawn(record: Record, files: Files) -> tuple[dict[str, Any], list[str]]:
    """Return the parts made from files beside the record, and a sentence for each invalid file."""
    makers = {
        "ranks": lambda: rank_rows(record, files.ranks, files.profile),
        "stacks": lambda: profile_rows(files.profile) if files.profile else [],
        "unit": lambda: unit_of(files.profile or {}),
    }
    parts, problems = {}, []
    for name, make in makers.items():
        try:
            parts[name] = make()
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            parts[name] = ""
            problems.append(
                f"{name.replace('_', ' ')}: left out, for the rows beside the record do not fit "
                f"({type(error).__name__}: {error})"
            )
    return parts, problems
