"""Which commit fixed the accepted ranges: the proof that they were not chosen after the results."""

from pathlib import Path
from typing import Any

import yaml

from cuttlefish.record.provenance import git

JUDGED = ("accept", "reduced", "seeds", "rule", "reduced_rule", "reach", "value", "largest_of")
"""What of an entry a verdict depends on; the rest is words."""
UNCOMMITTED = "uncommitted"


def fixed_by(claims: Path) -> str:
    """`<commit> (<date>)` of the last commit that changed what a verdict depends on; `uncommitted` where the
    file's differs from the last commit's; empty without git, and where the history was cut off (a shallow
    clone) before that commit. Contents are compared, not lines: any line of a rule may decide."""
    committed = _fixed(claims, "HEAD")
    if committed is None:
        return UNCOMMITTED if git(claims.parent, "rev-parse", "HEAD") else ""
    if committed != _judged(claims.read_text(encoding="utf-8")):
        return UNCOMMITTED
    versions = _versions(claims)
    contents = [_fixed(claims, commit, path) for commit, path in versions]
    pairs = zip(versions, contents, [*contents[1:], None], strict=True)
    fixing = next((commit for (commit, _), content, before in pairs if content != before), None)
    if fixing is None or _is_cut_off(claims, fixing):
        return ""
    return git(claims.parent, "show", "--no-patch", "--format=%h (%cs)", fixing) or ""


def _is_cut_off(claims: Path, commit: str) -> bool:
    """Whether the commits before it are not here: then nobody can tell what it changed."""
    shallow = git(claims.parent, "rev-parse", "--is-shallow-repository") == "true"
    return shallow and git(claims.parent, "rev-parse", "--verify", f"{commit}^") is None


def words_of(fixed: str) -> str:
    """What `fixed_by` found, as a sentence."""
    if fixed == UNCOMMITTED:
        return "What verdicts depend on differs from what is committed."
    return (
        f"What verdicts depend on was last changed by {f'commit {fixed}' if fixed else 'an unknown commit'}."
    )


def _versions(claims: Path) -> list[tuple[str, str]]:
    """(commit, the file's path in the repository then), newest first, through renames."""
    log = git(claims.parent, "log", "--follow", "--name-only", "--format=%x00%H", "--", claims.name) or ""
    return [(entry.split()[0], entry.split()[-1]) for entry in log.split("\0") if len(entry.split()) > 1]


def _fixed(claims: Path, commit: str, path: str | None = None) -> Any:
    """What that commit judges by; None where it has no such file."""
    text = git(claims.parent, "show", f"{commit}:{path or f'./{claims.name}'}")
    return None if text is None else _judged(text)


def _judged(text: str) -> Any:
    try:
        return {entry["id"]: {key: entry.get(key) for key in JUDGED} for entry in yaml.safe_load(text)}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return text  # an old commit's that never was a list of claims
