"""The report: an index and one page per run, self-contained, written from records alone."""

import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from cuttlefish.evidence.records import Collection, LeftOut
from cuttlefish.record.provenance import available_cores
from cuttlefish.report.claims.verdict import Verdict
from cuttlefish.report.page.figure_list import Figure
from cuttlefish.report.page.index_data import index_data
from cuttlefish.report.page.names import Links, page_names
from cuttlefish.report.page.pages import as_json, render
from cuttlefish.report.page.run_page import Link, RunView, run_page
from cuttlefish.report.tables.table import Table

MOST_LINKS = 20
PICTURES = {
    "training": "Loss and accuracy",
    "rank_curves": "Stable rank of each layer",
    "rank_ratios": "Chosen rank over full rank",
    "stack_profile": "Profile of the stacks",
}
"""File names (without .svg) of a run's plots, with their captions."""
FEW = 200
"""Maximum number of pages to write without a second process, whose start would take longer."""


@dataclass(frozen=True)
class Report:
    """Content of the pages.

    Attributes:
        records: The folder that displayed paths are relative to.
        fixed: When the accepted ranges were fixed.
    """

    records: Path
    collection: Collection
    tables: Sequence[Table] = ()
    verdicts: Sequence[Verdict] = ()
    figures: Sequence[Figure] = field(default_factory=list)
    fixed: str = ""
    footer: str = ""


def write_site(report: Report, target: Path) -> Path:
    """Write the site under `target`, remove pages of deleted runs, return the index."""
    views = run_views(report, target)
    _write_runs(views, target / "runs")
    _copy_figures(report.figures, target)
    index = target / "index.html"
    index.write_text(index_page(report, views), encoding="utf-8")
    return index


def run_views(report: Report, target: Path) -> list[RunView]:
    """Return the content of each run's page; picture addresses are relative to `target`, the report."""
    runs = report.collection.runs
    names = page_names(runs)
    cells: dict[tuple, dict[str, Link]] = defaultdict(dict)
    for run, name in zip(runs, names, strict=True):
        cells[run.cell][name] = Link(f"seed {run.record.seed}", f"{name}.html")
    cited = _citations(report)
    views = []
    for run, name in zip(runs, names, strict=True):
        siblings, uses = _others(cells[run.cell], name), cited.get(run.record.run_key, [])[:MOST_LINKS]
        pictures = _pictures(report, run.path, target / "runs")
        views.append(RunView(run, name, _inside(report, run.path), siblings, uses, pictures))
    return views


def _pictures(report: Report, record: Path, pages: Path) -> list[Link]:
    """Return the plots in results/figures of a record in results/records."""
    if not record.is_relative_to(report.records):
        return []
    folder = report.records.parent / "figures" / record.parent.relative_to(report.records)
    found = [(folder / f"{name}.svg", caption) for name, caption in PICTURES.items()]
    there = [(Path(os.path.relpath(path, pages)).as_posix(), text) for path, text in found if path.is_file()]
    return [Link(text, address) for address, text in there]


def _others(cell: dict[str, Link], name: str) -> list[Link]:
    return [link for other, link in islice(cell.items(), MOST_LINKS + 1) if other != name][:MOST_LINKS]


def index_page(report: Report, views: Sequence[RunView]) -> str:
    """Return the index page as HTML."""
    collection, verdicts = report.collection, report.verdicts
    finished = len(collection.finished)
    return render(
        "index.html", tables=report.tables, verdicts=verdicts, figures=report.figures, fixed=report.fixed,
        footer=report.footer,
        anchor=anchor_of,
        links=Links([view.run for view in views], [view.name for view in views]),
        data=as_json(index_data(views)), outcomes=_outcomes,
        left_out=[(_inside(report, item.path), _reason(report, item)) for item in collection.left_out],
        summary={
            "runs": len(collection.runs),
            "finished": finished,
            "unfinished": len(collection.runs) - finished,
        },
        tallies={
            "paper": Counter(str(verdict.verdict) for verdict in verdicts),
            "reduced": Counter(str(verdict.reduced_verdict) for verdict in verdicts),
        },
    )  # fmt: skip


def anchor_of(table: Table) -> str:
    """Return a table's anchor; a table may appear once per scale."""
    return f"{table.name}-{table.scale}" if table.scale else table.name


def _outcomes(verdict: Verdict) -> str:
    return json.dumps([f"paper: {verdict.verdict}", f"reduced: {verdict.reduced_verdict}"])


def _citations(report: Report) -> dict[str, list[Link]]:
    """Return run key -> the claims, tables and figures that use it, as links from a run's page."""
    cited: dict[str, dict[Link, None]] = defaultdict(dict)
    for verdict in report.verdicts:
        for key in verdict.runs:
            cited[key][Link(f"claim {verdict.id}", f"../index.html#claim-{verdict.id}")] = None
    for table in report.tables:
        for _, row in table.rows:
            for key in {key for cell in row for key in cell.runs}:
                cited[key][Link(table.title, f"../index.html#{anchor_of(table)}")] = None
    for figure in report.figures:
        for key in figure.runs:
            cited[key][Link(f"{figure.title} ({figure.scale})", f"../index.html#{figure.anchor}")] = None
    return {key: list(links) for key, links in cited.items()}


def _write_runs(views: Sequence[RunView], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.glob("*.html")} - {f"{view.name}.html" for view in views}:
        (folder / stale).unlink()
    write = partial(_write_run, folder)
    if len(views) < FEW:
        for view in views:
            write(view)
        return
    with ProcessPoolExecutor(available_cores()) as pool:
        list(pool.map(write, views, chunksize=50))


def _write_run(folder: Path, view: RunView) -> None:
    (folder / f"{view.name}.html").write_text(run_page(view), encoding="utf-8", errors="replace")


def _copy_figures(figures: Sequence[Figure], target: Path) -> None:
    shutil.rmtree(target / "figures", ignore_errors=True)
    for figure in figures:
        if figure.source is None:
            continue
        place = target / figure.href
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(figure.source, place)


def _inside(report: Report, path: Path) -> str:
    return str(path.relative_to(report.records)) if path.is_relative_to(report.records) else path.name


def _reason(report: Report, item: LeftOut) -> str:
    """Return the reason without this machine's path to the records, which must stay private."""
    return item.reason.replace(f"{report.records}/", "")
