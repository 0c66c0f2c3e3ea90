"""Which commit fixed the accepted ranges, in repositories made for it."""

import pytest

from cuttlefish.report.claims.acceptance import fixed_by, words_of
from tests.helpers.repository import git

BASE = """- id: a
  what: a claim
  accept: [1, 2]
  seeds: {paper: 3}
  rule:
    name: paired_difference
    of: params_total
    alike: [hardware]
    tolerance: 0.05
    left: {config.method.switch_epoch: 120}
    correlation: {at_least: 0.7}
"""


def commit(claims, text):
    claims.write_text(text)
    git(claims.parent, "add", claims.name)
    git(claims.parent, "commit", "--allow-empty", "-m", "x")
    return git(claims.parent, "rev-parse", "--short", "HEAD")


@pytest.fixture
def claims(tmp_path):
    git(tmp_path, "init", "-q")
    return tmp_path / "claims.yaml"


@pytest.mark.parametrize(
    "old, new",
    [
        ("params_total", "params_full"),
        ("tolerance: 0.05", "tolerance: 0.5"),
        ("[hardware]", "[]"),
        ("120", "60"),
        ("at_least: 0.7", "at_least: 0.1"),
        ("    tolerance: 0.05\n", ""),
        ("[1, 2]", "[0, 9]"),
    ],
)
def test_any_change_of_what_a_verdict_depends_on_is_found(claims, old, new):
    commit(claims, BASE)
    changing = commit(claims, BASE.replace(old, new))
    commit(claims, BASE.replace(old, new).replace("a claim", "other words") + "\n# a comment\n")
    assert fixed_by(claims).startswith(f"{changing} (20")
    claims.write_text(BASE)
    assert words_of(fixed_by(claims)) == "What verdicts depend on differs from what is committed."


def test_the_first_commit_fixed_what_never_changed(claims):
    assert fixed_by(claims) == ""  # no commit at all
    claims.write_text(BASE)
    git(claims.parent, "commit", "--allow-empty", "-m", "x")
    assert fixed_by(claims) == "uncommitted"
    first = commit(claims, BASE)
    commit(claims, BASE.replace("a claim", "other words"))
    assert fixed_by(claims).startswith(first)


def test_a_history_that_was_cut_off_tells_nothing(claims, tmp_path_factory):
    for text in (BASE, BASE.replace("120", "60"), BASE.replace("120", "60") + "\n# a comment\n"):
        commit(claims, text)
    for depth, known in ((1, False), (2, False), (3, True)):
        clone = tmp_path_factory.mktemp("clone")
        git(clone, "clone", "--depth", str(depth), f"file://{claims.parent}", ".")
        assert bool(fixed_by(clone / claims.name)) == known
    assert words_of("") == "What verdicts depend on was last changed by an unknown commit."
