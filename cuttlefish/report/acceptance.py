"""Which commit fixed the accepted ranges: the proof that they were not chosen after the results."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

FIXED = ("accept", "reduced", "seeds", "rule", "reduced_rule")
LINES = r"^ *(accept|reduced|seeds|rule|reduced_rule|paper|within|at_least|at_most|above|below|label|name):"
UNCOMMITTED = "uncommitted"


def fixed_by(claims: Path) -> str:
    """`<commit> (<date>)` of the last commit that touched what a verdict depends on; `uncommitted` where the file's differs from the
    last commit's; empty without git."""
    committed = _git(claims, "show", f"HEAD:./{claims.name}")
    if committed is None:
        return UNCOMMITTED if _git(claims, "rev-parse", "HEAD") else ""
    if _fixed(committed) != _fixed(claims.read_text(encoding="utf-8")):
        return UNCOMMITTED
    return (_git(claims, "log", "-1", "--format=%h (%cs)", "-G", LINES, "--", claims.name) or "").strip()


def _fixed(text: str) -> list[Any]:
    return [{key: entry.get(key) for key in ("id", *FIXED)} for entry in yaml.safe_load(text)]


def _git(claims: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(claims.parent), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
