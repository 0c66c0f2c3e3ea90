"""Verdicts as screen text, Markdown and JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cuttlefish.display.format import UNKNOWN, number, stated
from cuttlefish.display.screen import cells as _cells
from cuttlefish.evidence.interval import Interval
from cuttlefish.record.record import plain
from cuttlefish.report.claims.acceptance import words_of
from cuttlefish.report.claims.verdict import Judgement, Part, Reading, Verdict

GOOD = (Judgement.REPRODUCED, Judgement.HOLDS)
BAD = (Judgement.NOT_REPRODUCED, Judgement.FAILS, Judgement.CONTRADICTED)
BAR = "\\|"


def on_screen(verdicts: Sequence[Verdict]) -> RenderableType:
    """Return one line per claim: both verdicts, with our value if there is one."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("claim", "the paper", "at paper scale", "ours", "at reduced scale", "ours", "n"):
        side = "right" if heading in ("the paper", "ours", "n") else "left"
        table.add_column(heading, no_wrap=True, justify=side)
    for verdict in verdicts:
        both = ((_coloured(one), *_cells(ours(one))) for one in (verdict.paper, verdict.reduced))
        figures = [cell for scale in both for cell in scale]
        table.add_row(
            *_cells(verdict.id, stated(verdict.value)), *figures, *_cells(str(verdict.reduced.n or ""))
        )
    return Group(table, Text(""), Text(counts(verdicts)))


def counts(verdicts: Sequence[Verdict]) -> str:
    """Return `36 claims at paper scale: 23 not run, …. At reduced scale: …`."""
    paper, reduced = (
        ", ".join(f"{count} {outcome}" for outcome, count in Counter(outcomes).most_common())
        for outcomes in ([v.verdict for v in verdicts], [v.reduced_verdict for v in verdicts])
    )
    return f"{len(verdicts)} claims. At paper scale: {paper}. At reduced scale: {reduced}."


def to_json(verdicts: Sequence[Verdict], fixed: str) -> str:
    content = {"accepted_ranges_fixed_by": fixed, "claims": list(map(asdict, verdicts))}
    return json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n"


def to_markdown(verdicts: Sequence[Verdict], fixed: str) -> str:
    """Return a table of all claims, followed by the evidence of each."""
    heads = "| claim | the paper says | accepted | at paper scale | ours | at reduced scale | ours |"
    rows = [_row(verdict) for verdict in verdicts]
    lines = [
        "# Claims", "", counts(verdicts), "",
        f"{words_of(fixed)} The head of claims.yaml says what had been run by then. Verdicts are computed by "
        "`make claims` from results/records and results/bench; intervals are 95 %. A run made by "
        "`python run.py` counts once it is imported: `python -m scripts.records import runs/<experiment>/*`; "
        "`make` and `scripts.tables` import theirs.", "",
        heads, "|" + "---|" * heads.count(" |"), *rows, "", "## Evidence", "",
        *(line for verdict in verdicts for line in _evidence(verdict)),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def ours(reading: Reading) -> str:
    """Return our value, marked if it is composed; empty if there is none."""
    if reading.ours is None:
        return ""
    return f"{number(reading.ours)}{' (composed)' if reading.composed else ''}"


def between(interval: Interval | None) -> str:
    return f"[{number(interval[0])}, {number(interval[1])}]" if interval else UNKNOWN


def _row(verdict: Verdict) -> str:
    value = f": **{stated(verdict.value)}**" if verdict.value is not None else ""
    says = f"[{verdict.id}](#{verdict.id})", f"{verdict.what}{value} ({verdict.source})", verdict.accepted
    paper, reduced = _ours(verdict.paper), _ours(verdict.reduced)
    cells = [*says, f"**{verdict.verdict}**", paper, verdict.reduced_verdict, reduced]
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def _ours(reading: Reading) -> str:
    if reading.ours is None:
        return ""
    of_several = f", one of {len(reading.parts)} parts" if len(reading.parts) > 1 else ""
    return f"{ours(reading)} {between(reading.interval)}, n = {reading.n}{of_several}"


def _evidence(verdict: Verdict) -> list[str]:
    lines = [f"### {verdict.id}", ""]
    lines += [f"{verdict.note}.", ""] if verdict.note else []
    for scale, reading, accepted in (
        ("Paper scale", verdict.paper, verdict.accepted),
        ("Reduced scale", verdict.reduced, verdict.accepted_reduced),
    ):
        if reading.verdict is not Judgement.NO_READING or reading.notes:
            accepts = f"Accepted: {accepted or 'anything, it is only shown'}."
            lines += [f"**{scale}: {reading.verdict}.** {accepts}", "", *_details(reading), ""]
    return lines


def _details(reading: Reading) -> list[str]:
    words = {
        "hardware: ": ", ".join(reading.hardware),
        "runs: ": ", ".join(f"`{key}`" for key in reading.runs),
        "benches: ": ", ".join(f"`{name}`" for name in reading.benches),
        "composed of measured step times and what reduced runs found; ": reading.composed
        and "no run took it",
        "to run: ": reading.command and f"`{reading.command}`",
        "which takes: ": reading.cost,
    }
    return [
        *(_part(part) for part in reading.parts if part.value is not None),
        *([f"- {'; '.join(reading.notes)}"] if reading.notes else []),
        *(f"- {what}{value}" for what, value in words.items() if value),
    ]


def _part(part: Part) -> str:
    low, high = (UNKNOWN if limit is None else f"{limit:g}" for limit in part.accept)
    limits = "anything" if low == high == UNKNOWN else f"{low} to {high}"
    few = f" of {part.needs}" if part.n < part.needs else ""
    ours = f"{number(part.value)}, interval {between(part.interval)}, n = {part.n}{few}"
    return f"- {part.name}: {ours}, accepted {limits}: {part.state}"


def _coloured(reading: Reading) -> Text:
    colours = {**dict.fromkeys(GOOD, "green"), **dict.fromkeys(BAD, "red")}
    usual = "dim" if reading.ours is None else ""
    return Text(str(reading.verdict), style=colours.get(reading.verdict, usual))
