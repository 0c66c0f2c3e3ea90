"""File names of run pages, and links from a number to the runs behind it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from cuttlefish.evidence.records import Evidence

LONGEST = 40


def page_names(runs: Sequence[Evidence]) -> list[str]:
    """Return a file name per run without suffix: the run key, numbered for repeats of a key."""
    seen: Counter[str] = Counter()
    return [_numbered(_plain(run.record.run_key), seen) for run in runs]


class Links:
    """Links from run keys to addresses, relative to the index."""

    def __init__(self, runs: Sequence[Evidence], names: Iterable[str]):
        self.pages: dict[str, list[str]] = defaultdict(list)
        for run, name in zip(runs, names, strict=True):
            self.pages[run.record.run_key].append(name)

    def of(self, keys: Sequence[str]) -> str:
        """Return the run's page for a single run, else the list filtered to these runs, or nothing."""
        known = [key for key in dict.fromkeys(keys) if key in self.pages]
        pages = [page for key in known for page in self.pages[key]]
        if len(pages) == 1:
            return f"runs/{pages[0]}.html"
        plain = [key for key in known if re.fullmatch(r"\w+", key)]
        return f"#runs?keys={','.join(plain)}" if plain else ""


def _numbered(name: str, seen: Counter[str]) -> str:
    """Append a number; plain names have no dash, so the two cannot collide."""
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


def _plain(key: str) -> str:
    """Return the key in lower case (some file systems ignore case) without characters special in paths."""
    return re.sub(r"[^a-z0-9]", "_", key.lower())[:LONGEST] or "run"
