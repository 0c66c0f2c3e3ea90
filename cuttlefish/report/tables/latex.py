"""A table as LaTeX, for `\\input` in a paper; needs the packages booktabs and graphicx."""

from collections.abc import Iterator

from cuttlefish.display.format import one_line
from cuttlefish.report.tables.markdown import DAGGER, daggered, notes_of
from cuttlefish.report.tables.table import Table

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
    yield r"\begin{table*}"
    yield r"\centering"
    yield rf"\caption{{{escaped(table.title)}.}}"
    yield rf"\label{{tab:{table.name}-{table.scale or 'all'}}}"
    yield r"\resizebox{\textwidth}{!}{%"
    yield rf"\begin{{tabular}}{{{alignment}}}"
    yield r"\toprule"
    yield _row([column.title for column in table.columns])
    for block in table.blocks:
        yield r"\midrule"
        yield rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{escaped(block.title)}}}}} \\"
        for row in block.rows:
            yield _row([daggered(column, cell) for column, cell in zip(table.columns, row, strict=True)])
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    for note in notes_of(table):
        yield rf"\par\smallskip\raggedright\footnotesize {escaped(note)}"
    yield r"\end{table*}"


def _row(words: list[str]) -> str:
    return f"{' & '.join(map(escaped, words))} \\\\"
