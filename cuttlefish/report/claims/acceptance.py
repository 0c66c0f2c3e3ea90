"""Find the commit that fixed the accepted ranges, as proof that they were not chosen after the results."""

from pathlib import Path
from typing import Any

import yaml

from cuttlefish.record.provenance import git

JUDGED = ("accept", "reduced", "seeds", "rule", "reduced_rule", "reach", "value", "largest_of")
"""Keys of an entry that a verdict depends on; the rest is text."""
UNCOMMITTED = "uncommitted"


def fixed_by(claims: Path) -> str:
    """Return `<commit> (<date>)` of the last commit that changed what a verdict depends on; `uncommitted` if
    the file differs from the last commit; empty without git or in a shallow clone cut off before that commit.
    Contents are compared, not lines: any line of a rule may matter."""
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
    """Return whether the parent commits are missing, so that its changes are unknown."""
    shallow = git(claims.parent, "rev-parse", "--is-shallow-repository") == "true"
    return shallow and git(claims.parent, "rev-parse", "--verify", f"{commit}^") is None


def words_of(fixed: str) -> str:
    """Return the result of `fixed_by` as a sentence."""
    if fixed == UNCOMMITTED:
        return "What verdicts depend on differs from what is committed."
    commit = f"commit {fixed}" if fixed else "an unknown commit"
    return f"What verdicts depend on was last changed by {commit}."


def _versions(claims: Path) -> list[tuple[str, str]]:
    """Return (commit, the file's path in that commit), newest first, through renames."""
    log = git(claims.parent, "log", "--follow", "--name-only", "--format=%x00%H", "--", claims.name) or ""
    return [(entry.split()[0], entry.split()[-1]) for entry in log.split("\0") if len(entry.split()) > 1]


def _fixed(claims: Path, commit: str, path: str | None = None) -> Any:
    """Return what that commit judges by; None if it has no such file."""
    text = git(claims.parent, "show", f"{commit}:{path or f'./{claims.name}'}")
    return None if text is None else _judged(text)


def _judged(text: str) -> Any:
    try:
        return {entry["id"]: {key: entry.get(key) for key in JUDGED} for entry in yaml.safe_load(text)}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return text  # an old commit's file that never was a list of claims
