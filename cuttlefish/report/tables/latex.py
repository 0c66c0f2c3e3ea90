"""A table as LaTeX, for `\\input` in a paper; needs the packages booktabs and graphicx."""

from collections.abc import Iterator

from cuttlefish.display.format import one_line
from cuttlefish.report.tables.markdown import DAGGER, daggered
from cuttlefish.report.tables.table import Cell, Column, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "×": r"$\times$", "±": r"$\pm$", "–": "--", "−": "$-$", "·": r"$\cdot$",
    DAGGER: r"\textsuperscript{\dag}", "…": r"\ldots{}", "≥": r"$\geq$", "≤": r"$\leq$", "τ": r"$\tau$",
    "ρ": r"$\rho$", "ε": r"$\epsilon$", '"': r"\textquotedbl{}",
}  # fmt: skip
"""Replacements for characters special to LaTeX or absent from common fonts."""


def to_latex(table: Table) -> str:
    """Return a table* with one tabular: a heading line per block, notes below."""
    return "\n".join(_lines(table)) + "\n"


def escaped(text: str) -> str:
    """Return text that LaTeX prints unchanged; unknown characters outside ASCII become `?`."""
    return "".join(
        SPECIAL.get(character, character if character.isascii() else "?") for character in one_line(text)
    )


def _lines(table: Table) -> Iterator[str]:
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    yield "% Written by `make tables`; needs \\usepackage{booktabs} and \\usepackage{graphicx}."
    yield from (
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escaped(table.title)}.}}",
        rf"\label{{tab:{table.name}-{table.scale or 'all'}}}",
    )
    yield from (r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule")
    yield _row([escaped(column.title) for column in table.columns])
    for block in table.blocks:
        yield from (
            r"\midrule",
            rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{escaped(block.title)}}}}} \\",
        )
        yield from (
            _row([_text(column, cell) for column, cell in zip(table.columns, row, strict=True)])
            for row in block.rows
        )
    yield from (r"\bottomrule", r"\end{tabular}}")
    yield from (
        rf"\par\smallskip\raggedright\footnotesize {escaped(_note(table, index))}"
        for index in range(len(table.notes))
    )
    yield r"\end{table*}"


def _text(column: Column, cell: Cell) -> str:
    return escaped(daggered(column, cell))


def _note(table: Table, index: int) -> str:
    marked = any(cell.mark for _, row in table.rows for cell in row)
    return f"{DAGGER} {table.notes[index]}" if marked and index == 0 else table.notes[index]


def _row(words: list[str]) -> str:
    return f"{' & '.join(words)} \\\\"
