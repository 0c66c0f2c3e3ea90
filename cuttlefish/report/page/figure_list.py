"""Read the list of figures drawn by `scripts.figures`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cuttlefish.errors import CuttlefishError

LIST = "figures.json"


@dataclass(frozen=True)
class Figure:
    """A picture to show, or one without evidence (source is None).

    Attributes:
        runs: Keys of the runs it was drawn from.
        missing: What it lacks.
        command: How to run what it lacks.
    """

    name: str
    source: Path | None
    caption: str = ""
    scale: str = ""
    title: str = ""
    runs: tuple[str, ...] = ()
    missing: str = ""
    command: str = ""

    @property
    def href(self) -> str:
        return f"figures/{self.scale}/{self.name}.svg"

    @property
    def anchor(self) -> str:
        return f"{self.name}-{self.scale}"


def listed_figures(folder: Path) -> Iterator[Figure]:
    """Yield the figures of every scale under `folder`; raise CuttlefishError for an unreadable list."""
    for path in sorted(folder.glob(f"*/{LIST}")):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            yield from [_figure(path.parent, entry) for entry in entries]
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            why = f"{type(error).__name__}: {error}"
            remedy = "write it again with `make figures`"
            raise CuttlefishError(f"{path} is no list of figures ({why}): {remedy}") from error


def _figure(folder: Path, entry: dict) -> Figure:
    """Read an entry; one without its picture file counts as missing."""
    name = Path(entry["name"]).name
    source = folder / f"{name}.svg"
    missing = entry.get("missing") or ("" if source.is_file() else f"{source.name} is not there")
    shown = entry.get("caption", ""), folder.name, entry.get("title") or name
    sources = tuple(entry.get("runs", ())), missing, entry.get("command") or "make figures"
    return Figure(name, None if missing else source, *shown, *sources)
