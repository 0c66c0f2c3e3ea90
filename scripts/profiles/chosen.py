"""The rank ratios that a run chose, for figure 6."""

from collections.abc import Iterable
from dataclasses import dataclass

from cuttlefish.errors import CuttlefishError
from cuttlefish.record.find import find_record
from cuttlefish.record.folder import read_ranks
from cuttlefish.record.record import read_record


@dataclass(frozen=True)
class Chosen:
    """What a run chose: its key, network and data, and layer -> rank over full rank."""

    run_key: str
    model: str
    data: str
    ratios: dict[str, float]

    def facts(self) -> dict[str, str]:
        return {"run_key": self.run_key, "model": self.model, "data": self.data}


def chosen_by(word: str) -> Chosen:
    """Return the ratios of a finished run, named by its key, its folder or its record.

    Raises:
        CuttlefishError: There is no such run, or it has no ranks.
    """
    path = find_record(word)
    record = read_record(path)
    full = {row["layer"]: row["full_rank"] for row in read_ranks(path.parent)}
    ratios = {name: rank / full[name] for name, rank in (record.ranks or {}).items() if name in full}
    if not ratios:
        raise CuttlefishError(
            f"--run {word}: run {record.run_key} has no factorized layer whose full rank is in its ranks.csv"
        )
    return Chosen(record.run_key, record.model, record.data, ratios)


def check_names(chosen: Chosen, names: Iterable[str], model: str) -> None:
    """Raise CuttlefishError if no layer of the profiled network has a ratio."""
    if not chosen.ratios.keys() & set(names):
        raise CuttlefishError(
            f"--run {chosen.run_key}: it is a run of {chosen.model}, none of whose layers "
            f"({min(chosen.ratios)}, …) is one of {model}"
        )
