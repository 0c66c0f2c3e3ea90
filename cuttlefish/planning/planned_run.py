"""A run that a table or figure needs, whether or not it exists, and how to recognise it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedRun:
    """One run of a row.

    Attributes:
        table, row: Where it is shown; label, kinds and baseline are the row's.
        point: The values of the row's own sweep.
        run_key: The key of its record.
        words: Arguments for `python run.py`.
        folder: Its run folder.
        epochs: Of all phases together; None if only the model decides.
        data_there: Whether its data is on this machine.
        waits_for: Run key, label and folder of the run whose size it takes.
    """

    table: str
    row: str
    label: str
    kinds: tuple[str, ...]
    baseline: bool
    model: str
    data: str
    scale: str
    seed: int
    point: tuple[tuple[str, str], ...]
    run_key: str
    words: tuple[str, ...]
    folder: str
    epochs: int | None
    precision: str = "fp32"
    data_there: bool = True
    waits_for: str | None = None
    waits_for_label: str | None = None
    waits_in: str | None = None

    @property
    def cell(self) -> tuple[object, ...]:
        """The values its seeds have in common."""
        return (self.table, self.row, self.model, self.data, self.point)

    def choices(self, *groups: str) -> tuple[str, ...]:
        """Return what its arguments choose of these groups, as `glue/rte` of `data`; else its own fields."""
        chosen = dict(word.partition("=")[::2] for word in self.words)
        return tuple(chosen.get(group, getattr(self, group)) for group in groups)

    @property
    def title(self) -> str:
        """The label with the point of the row's own sweep: `fixed E, K and ratio (k=5, rank_ratio=0.25)`."""
        point = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.point)
        return f"{self.label} ({point})" if point else self.label
