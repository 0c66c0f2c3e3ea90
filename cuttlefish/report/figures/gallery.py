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


FIGURES: dict[str, tuple[str, Draw]] = {
    "figure1": ("Accuracy and size over (E, K, ratio)", figure1.draw),
    "figure1-methods": ("Accuracy, size and time of all methods", methods.draw),
    "figure2": ("Ranks while training", figure2.draw),
    "figure3": ("Settled rank of each layer", figure3.draw),
    "figure4": ("Profile of the stacks", figure4.draw),
    "figure5": ("Ranks that methods choose", figure5.draw),
    "figure6": ("Times of single layers", figure6.draw),
}


def draw_figure(name: str, sources: Sources, folder: Path) -> list[Drawn]:
    """Draw one figure, save its PNG and SVG files and remove old ones that no longer have evidence.

    Returns:
        The files drawn, or one entry that names what is missing.
    """
    number, (title, draw) = name.partition("-")[0], FIGURES[name]
    try:
        with style.styled():
            drawings = draw(sources)
            for drawing in drawings:
                style.save_figure(drawing.figure, folder, drawing.name)
    except NoData as error:
        _remove_all_but(folder, name, set())
        return [Drawn(name, title, missing=str(error), command=f"make {number} SCALE={sources.scale}")]
    _remove_all_but(folder, name, {drawing.name for drawing in drawings})
    return [Drawn(d.name, title, d.caption, runs=d.runs, benches=d.benches) for d in drawings]


def is_of(file: str, name: str) -> bool:
    """Return whether a file (without suffix) belongs to that figure, as figure1-methods-published does."""
    return file == name or file.startswith(f"{name}-p")


def _remove_all_but(folder: Path, name: str, drawn: set[str]) -> None:
    for path in [*folder.glob(f"{name}*.png"), *folder.glob(f"{name}*.svg")]:
        if is_of(path.stem, name) and path.stem not in drawn:
            path.unlink()
