"""Where each run's page lies, and the address that leads from a number to the runs behind it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from cuttlefish.evidence.records import Evidence

LONGEST = 40


def page_names(runs: Sequence[Evidence]) -> list[str]:
    """One file name a run, without its suffix: the run key, and for a repeat of it also a number."""
    seen: Counter[str] = Counter()
    return [_numbered(_plain(run.record.run_key), seen) for run in runs]


class Links:
    """From run keys to an address, as seen from the index."""

    def __init__(self, runs: Sequence[Evidence], names: Iterable[str]):
        self.pages: dict[str, list[str]] = defaultdict(list)
        for run, name in zip(runs, names, strict=True):
            self.pages[run.record.run_key].append(name)

    def of(self, keys: Sequence[str]) -> str:
        """Return the run's page if it is one, else the list filtered to these runs, or nothing."""
        known = [key for key in dict.fromkeys(keys) if key in self.pages]
        pages = [page for key in known for page in self.pages[key]]
        if len(pages) == 1:
            return f"runs/{pages[0]}.html"
        plain = [key for key in known if re.fullmatch(r"\w+", key)]
        return f"#runs?keys={','.join(plain)}" if plain else ""


def _numbered(name: str, seen: Counter[str]) -> str:
    """Numbered names cannot meet plain ones: a plain one has no dash."""
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


def _plain(key: str) -> str:
    """Return the key in lower case (some file systems ignore case) without characters special in paths."""
    return re.sub(r"[^a-z0-9]", "_", key.lower())[:LONGEST] or "run"
