"""All figures by number: the files of each, drawn, or the reason why not."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cuttlefish.display import style
from cuttlefish.report.figures import figure1, figure2, figure3, figure4, figure5, figure6, methods
from cuttlefish.report.figures.base import Drawing, NoData, Sources

Draw = Callable[[Sources], list[Drawing]]


@dataclass(frozen=True)
class Drawn:
    """A file without its suffix, or (missing) what it needs. command: how to run what is missing."""

    name: str
    title: str
    caption: str = ""
    missing: str = ""
    command: str = ""
    runs: list[str] = field(default_factory=list)
    benches: list[str] = field(default_factory=list)


TITLES = {
    "figure1": "Accuracy and size over (E, K, ratio)",
    "figure1-methods": "Accuracy, size and time of all methods",
    "figure2": "Ranks while training",
    "figure3": "Settled rank of each layer", "figure4": "Profile of the stacks",
    "figure5": "Ranks that methods choose", "figure6": "Times of single layers",
}  # fmt: skip


DRAWERS: dict[str, Draw] = {
    "figure1": figure1.draw, "figure1-methods": methods.draw, "figure2": figure2.draw,
    "figure3": figure3.draw, "figure4": figure4.draw, "figure5": figure5.draw, "figure6": figure6.draw,
}  # fmt: skip


def draw_figure(name: str, draw: Draw, sources: Sources, folder: Path) -> list[Drawn]:
    """Draw one figure, save its PNG and SVG files and remove old ones that no longer have evidence.

    Returns:
        The files drawn, or one entry that names what is missing.
    """
    number = name.partition("-")[0]
    try:
        with style.styled():
            drawings = draw(sources)
            for drawing in drawings:
                style.save_figure(drawing.figure, folder, drawing.name)
    except NoData as error:
        _remove_all_but(folder, name, set())
        return [Drawn(name, TITLES[name], missing=str(error), command=f"make {number} SCALE={sources.scale}")]
    _remove_all_but(folder, name, {drawing.name for drawing in drawings})
    return [Drawn(d.name, TITLES[name], d.caption, runs=d.runs, benches=d.benches) for d in drawings]


def is_of(file: str, name: str) -> bool:
    """Return whether a file (without suffix) belongs to that figure, as figure1-methods-published does."""
    return file == name or file.startswith(f"{name}-p")


def _remove_all_but(folder: Path, name: str, drawn: set[str]) -> None:
    for path in [*folder.glob(f"{name}*.png"), *folder.glob(f"{name}*.svg")]:
        if is_of(path.stem, name) and path.stem not in drawn:
            path.unlink()
