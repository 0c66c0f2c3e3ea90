"""The report: nothing a record says becomes markup, nothing damaged stops a page, numbers have sources."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.records import Evidence, load_evidence
from cuttlefish.record.fields import Record
from cuttlefish.report.claims.text import to_markdown
from cuttlefish.report.claims.verdict import Judgement, Part, Reading, Verdict
from cuttlefish.report.page.figure_list import Figure, listed_figures
from cuttlefish.report.page.names import Links, page_names
from cuttlefish.report.page.run_page import RunView, run_page
from cuttlefish.report.page.site import Report, write_site
from cuttlefish.report.tables.table import Block, Cell, Column, Table
from tests.helpers.many_records import made_up_record, write_many, write_run

HOSTILE = """</script></pre></title><script>alert(1)</script><img src=x onerror=alert(1)>"'&\u2028\x1b[31m\x07\u202e"""


class Outline(HTMLParser):
    """Tags, and attributes by name; what page text could never change. text: what a reader sees."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, *sorted(name for name, _ in attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def evidence(folder: Path, record: Record) -> Evidence:
    return Evidence(folder / "record.json", record)


def claim(ident="speed", runs=("000000000001",), **changes) -> Verdict:
    part = Part("speed-up", 1.5, (1.4, 1.6), 3, 3, (1.2, None), "inside")
    numbers = {"ours": 1.5, "interval": (1.4, 1.6), "n": 3, "needs": 3}
    sources = {"hardware": ["a CPU"], "runs": list(runs), "benches": ["steps.json"], "notes": ["a note"]}
    made = {"parts": [part, part], "composed": True, "command": "python run.py", "cost": "1 h"}
    both = Reading(Judgement.NOT_RUN), Reading(Judgement.HOLDS, **numbers, **sources, **made)
    words = "above 1", "above 1.2", "as read"
    verdict = Verdict(ident, "it is faster", "Table 1", "here", 1.2, (1.1, 1.3), *words, *both)
    return replace(verdict, **changes)


def table(**changes) -> Table:
    columns = [Column("method", "method", numeric=False), Column("accuracy", "accuracy", "%")]
    row = [Cell("cuttlefish", "cuttlefish"), Cell("78.9", 78.9, "reduced", ("000000000001", "000000000025"))]
    made = Table("table1", "Table 1", columns, [Block("resnet18", [row])], ["n"])
    return replace(made, **changes)


def strings_replaced(value, text):
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [strings_replaced(item, text) for item in value]
    if isinstance(value, dict):
        return {key: strings_replaced(item, text) for key, item in value.items()}
    return value


def index_of(root, *parts) -> str:
    """The first page of a report on the records under `root`."""
    return write_site(Report(root, load_evidence(root), *parts), root / "out").read_text()


def test_the_site(tmp_path):
    records, out = tmp_path / "records", tmp_path / "out"
    write_many(records, 40)
    picture = tmp_path / "figure2.svg"
    picture.write_text("<svg/>")
    figures = [
        Figure("figure2", picture, "Ranks by epoch", "reduced", "Figure 2", ("000000000001",)),
        Figure("figure4", None, missing="no profile"),
    ]
    told = {"fixed": "fixed by 1234", "footer": "from commit x"}
    report = Report(records, load_evidence(records), [table()], [claim()], figures, **told)
    (record,) = records.rglob("*000000000001")
    plots = tmp_path / "figures" / record.relative_to(records)
    plots.mkdir(parents=True)
    (plots / "training.svg").write_text("<svg/>")
    (out / "runs").mkdir(parents=True)
    (out / "runs/gone.html").write_text("stale")
    index = write_site(report, out)
    assert len(list((out / "runs").iterdir())) == 40
    assert not (out / "runs/gone.html").exists()
    assert (out / "figures/reduced/figure2.svg").read_text() == "<svg/>"
    page = Outline(index.read_text())
    assert len(page.ids) == len(set(page.ids))
    assert {"claim-speed", "table1", "figure2-reduced", "runs"} <= set(page.ids)
    linked = "runs/000000000001.html #runs?keys=000000000001,000000000025 figures/reduced/figure2.svg"
    assert set(linked.split()) <= set(page.links)
    assert "40 records: 40 finished runs" in page.text
    assert "fixed by 1234" in page.text
    assert "holds at reduced scale" in page.text
    assert "1.5 (composed) [1.4, 1.6], n = 3" in page.text
    assert "no profile" in page.text and 'src="figures/reduced/figure2.svg"' in index.read_text()
    for link in page.links:
        assert link.startswith("#") or (out / link).exists(), link
    assert all(link[1:].split("?")[0] in page.ids for link in page.links if link.startswith("#"))
    run = Outline((out / "runs/000000000001.html").read_text())
    back = {f"../index.html#{anchor}" for anchor in ("claim-speed", "table1", "figure2-reduced")}
    assert back <= set(run.links)
    assert "E = 13 of 30: every rank settled" in run.text and "replay=000000000001" in run.text
    assert f"../../figures/{record.relative_to(records)}/training.svg" in run.links


def test_numbers_are_written_as_in_the_list_of_claims(tmp_path):
    many = replace(claim(value=2_700_000.0), reduced=Reading(Judgement.NO_READING), accepted_reduced="")
    text = index_of(tmp_path, [], [many])
    assert "the paper: 2,700,000<" in text and text.count("How it is judged") == 1
    text = index_of(tmp_path, [], [claim(value=94.66)])
    assert "the paper: 94.66<" in text and ": **94.66** (Table 1)" in to_markdown([claim(value=94.66)], "")
    assert "n = 3, one of 2 parts<" in text and text.count("How it is judged") == 2


def test_nothing_in_a_record_becomes_markup(tmp_path):
    plain, hostile = vars(made_up_record(1, "failed", error="an error")), {}
    for name, value in plain.items():
        hostile[name] = strings_replaced(value, HOSTILE) if name not in ("config", "ranks") else value
    hostile |= {"status": "failed", "scale": plain["scale"], "schema": 1}
    hostile |= {"packages": {HOSTILE: HOSTILE}, "config": {HOSTILE: HOSTILE}}
    plain = plain | {"config": {"one": "two"}, "packages": {"torch": "2"}}
    hostile["ranks"] = {f"{layer}{HOSTILE}": rank for layer, rank in plain["ranks"].items()}
    outlines = []
    for name, record in (("plain", plain), ("hostile", hostile)):
        folder = write_run(tmp_path / name, record)
        text = HOSTILE if name == "hostile" else "x"
        (folder / "log.txt").write_text(text)
        quoted = '"' + text.replace('"', '""').replace("\u2028", "") + '"'
        rows = [f"{epoch},{quoted}{layer},{9 - epoch},8,64\n" for epoch in range(3) for layer in range(12)]
        (folder / "ranks.csv").write_text("".join(rows))
        outlines.append(Outline(run_page(RunView(evidence(folder, Record(**record)), "a", text))))
    assert [tag for tag in outlines[1].tags if tag[0] == "script"] == []
    assert outlines[1].tags[:40] == outlines[0].tags[:40]
    assert {tag for tag in outlines[1].tags} <= {tag for tag in outlines[0].tags}
    assert "alert(1)" in outlines[1].text and not set("\x1b\x07\u202e") & set(outlines[1].text)


def test_nothing_in_the_index_becomes_markup_or_ends_its_data(tmp_path):
    pages = []
    for text in ("x", HOSTILE):
        root = tmp_path / str(len(pages))
        words = dict.fromkeys(("model", "data", "method", "preset", "run_key", "device"), text)
        write_run(root / "a", made_up_record(1, **words))
        (root / "b").mkdir()
        (root / "b" / "record.json").write_text(json.dumps({"schema": 1, text: text}))
        verdict = claim(runs=(text,), what=text, source=text, accepted=text, note=text)
        block = Block(text, [[Cell(text, text), Cell(text, text, text, (text,))]])
        shown = table(title=text, notes=[text], blocks=[block])
        pages.append(index_of(root, [shown], [verdict], [], text, text))
        assert [path.parent.name for path in root.rglob("*.html")].count("runs") == 1
    assert Outline(pages[0]).tags == Outline(pages[1]).tags
    assert not any(mark in page for page in pages for mark in "\x1b\x07\u2028\u202e")
    data = re.search(r'id="run-data">(.*?)</script>', pages[1], re.DOTALL)[1]
    assert HOSTILE.translate(dict.fromkeys((0x2028, 0x202E))) in json.loads(data)["words"]


def test_the_policy_allows_only_what_the_page_holds(tmp_path):
    text = index_of(tmp_path)
    page = Outline(text)
    assert [tag for tag in page.tags if tag[0] in ("link", "iframe", "object", "embed")] == []
    assert not any(name.startswith("on") or name == "style" for tag in page.tags for name in tag[1:])
    policy = re.search(r'Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("epochs.jsonl", '{"epoch": "one", "train_loss": []}\n{"epoch": 2}\nnull\n', ""),
        ("epochs.jsonl", '{"epoch": 3, "train_loss": 1e400}\n', ""),
        ("epochs.jsonl", "\x00\xff{\n", ""),
        ("ranks.csv", "1,layer,x,y,z\n", "ranks: 1 of 1 lines are no ranks and are left out"),
        ("ranks.csv", "1,l,1.0,1.0,0\n2,l,nan,inf,0\n3,l,1.0,1.0,4\n", "ranks: 2 of 3 lines are no ranks"),
        ("profile.json", "[1]", "profile: the file beside the record cannot be read"),
        ("profile.json", "{", "profile: the file beside the record cannot be read"),
        ("profile.json", '{"stacks": [{}], "ratio": "<b>"}', "stacks: left out"),
        ("profile.json", '{"stacks": 5, "source": 3}', "stacks: left out"),
        ("log.txt", "\x00\x1b[31m", ""),
    ],
)
def test_a_damaged_neighbour_is_named_or_left_out(tmp_path, name, content, told):
    folder = write_run(tmp_path / "run", made_up_record(1))
    (folder / name).write_bytes(content.encode("latin-1"))
    html = run_page(RunView(evidence(folder, made_up_record(1)), "a"))
    page = Outline(html)
    assert "E = 13" in page.text
    assert told in page.text
    assert ("Left out of this page" in page.text) == bool(told)
    assert not re.search(r'(points|d|c?[xy])="[^"]*(nan|inf)', html)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.text(), json_values, max_size=4)


@settings(deadline=None, max_examples=60)
@given(mappings, mappings, mappings, mappings, st.lists(json_values, max_size=3))
def test_whatever_a_sound_record_s_mappings_hold(config, extra, seconds, packages, phases):
    held = {"config": config, "extra": extra, "metrics": extra, "seconds": seconds}
    record = replace(made_up_record(1), packages=packages, phases=phases, **held)
    run_page(RunView(evidence(Path("nowhere"), record), "a"))


def test_repeats_have_pages_of_their_own_and_links_find_them(tmp_path):
    keys = ("abc", "ABC", "abc", "../x", "d" * 300)
    runs = [evidence(tmp_path, made_up_record(run_key=key)) for key in keys]
    names = page_names(runs)
    assert names == ["abc", "abc-2", "abc-3", "___x", "d" * 40]
    links = Links(runs, names)
    assert links.of(["d" * 300]) == f"runs/{'d' * 40}.html"
    assert links.of(["abc"]) == "#runs?keys=abc" and links.of(["unknown"]) == "" and links.of([]) == ""


def test_left_out_records_are_listed_without_machine_folders(tmp_path):
    write_run(tmp_path / "a", made_up_record(1))
    write_run(tmp_path / "b", made_up_record(1))
    page = Outline(index_of(tmp_path))
    assert "1 left out" in page.text
    assert "a copy of a/record.json" in page.text
    assert str(tmp_path) not in page.text


def test_figures_are_those_of_the_lists(tmp_path):
    folder = tmp_path / "reduced"
    folder.mkdir()
    (folder / "figure2.svg").write_text("<svg/>")
    entries = [{"name": "figure2", "caption": "c", "runs": ["k"]}, {"name": "../figure3"}]
    entries += [{"name": "figure4", "missing": "no profile", "command": "do"}]
    (folder / "figures.json").write_text(json.dumps(entries))
    two, three, four = listed_figures(tmp_path)
    assert (two.source, two.scale) == (folder / "figure2.svg", "reduced")
    assert (two.runs, two.anchor) == (("k",), "figure2-reduced")
    assert (three.name, three.source, three.missing) == ("figure3", None, "figure3.svg is not there")
    assert (four.source, four.missing, four.command) == (None, "no profile", "do")
    for content in ("{", "5", '[{"nme": 1}]', "[[]]"):
        (folder / "figures.json").write_text(content)
        with pytest.raises(CuttlefishError, match="is no list of figures .*make figures"):
            list(listed_figures(tmp_path))
