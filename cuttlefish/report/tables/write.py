"""Write tables to disk: <name>.md, .csv and .tex in one folder, and the list of records left out."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from cuttlefish.display.format import one_line
from cuttlefish.evidence.records import LeftOut
from cuttlefish.record.atomic import write_atomic
from cuttlefish.report.tables.latex import to_latex
from cuttlefish.report.tables.markdown import escaped, to_csv, to_markdown
from cuttlefish.report.tables.table import Table

LEFT_OUT = "left_out.md"
WRITERS = {"md": to_markdown, "csv": to_csv, "tex": to_latex}


def write_tables(
    folder: Path, tables: Iterable[Table], left_out: Sequence[LeftOut], root: Path
) -> list[Path]:
    """Write the tables and what was left out, whose paths are shown relative to `root`; return the files."""
    written = []
    for table in tables:
        for suffix, text_of in WRITERS.items():
            written.append(folder / f"{table.name}.{suffix}")
            write_atomic(written[-1], text_of(table))
    written.append(folder / LEFT_OUT)
    write_atomic(written[-1], left_out_text(left_out, root))
    return written


def left_out_text(left_out: Sequence[LeftOut], root: Path) -> str:
    """Return Markdown with one line per record."""
    lines = [
        f"- `{one_line(_relative(item.path, root)).replace('`', '')}`: "
        f"{escaped(item.reason.replace(f'{root}/', ''))}"
        for item in left_out
    ]
    return "\n".join(["# Records that do not count", "", *(lines or ["None."])]) + "\n"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
