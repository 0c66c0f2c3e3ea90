"""What the README and the docs say of results, files and commands is what is there."""

import re
from pathlib import Path

import pytest

from scripts.readme import MARKED, PAGES, _with_interval, main

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", ROOT / "results/reduced.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def test_measured_numbers_are_those_of_the_generated_files(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().err
    assert sum(len(MARKED.findall(TEXTS[page])) for page in PAGES) >= 4


@pytest.mark.parametrize("page, lines", [("README.md", 200), ("results/reduced.md", 61)])
def test_pages_for_newcomers_stay_short(page, lines):
    assert TEXTS[page].count("\n") < lines


@pytest.mark.parametrize("page", TEXTS)
def test_every_file_that_is_shown_or_linked_is_there(page):
    named = re.findall(r"\]\(([^)#][^)#]*)", TEXTS[page])
    missing = [name for name in named if "://" not in name and not ((ROOT / page).parent / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", TEXTS)
def test_every_make_target_that_is_named_exists(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = {
        name for line in re.findall(r"^([a-z0-9 -]+):", makefile, flags=re.MULTILINE) for name in line.split()
    }
    named = set(re.findall(r"(?:^|`|    )make ([a-z][a-z0-9-]*)", TEXTS[page], flags=re.MULTILINE))
    assert named <= known
    if page == "README.md":
        assert {"demo", "test"} <= named


def test_a_value_of_one_seed_has_no_interval():
    assert _with_interval(-10.634, None, "+.2f") == "-10.63"
    assert _with_interval(0.42, (0.3728, 0.4672), ".3g") == "0.42 [0.373, 0.467]"
