import gzip
import json
import lzma

import pytest

from cuttlefish.errors import CuttlefishError
from cuttlefish.tasks.text.rows import read_table


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def test_tsv_has_no_quoting_and_may_begin_with_a_mark(tmp_path):
    file = write(tmp_path / "a.tsv", '\ufeffQuality\t#1 String\r\n1\t"said "so\r\n0\tb\x85c\u2028d\n')
    table = read_table(file)
    assert list(table.columns) == ["Quality", "#1 String"]
    assert table.rows == [(2, ["1", '"said "so']), (3, ["0", "b\x85c\u2028d"])]


def test_csv_is_quoted(tmp_path):
    table = read_table(write(tmp_path / "a.csv", 'text,label\n"a, ""b""\nc",1\n\nd,0\n'))
    assert [row for _, row in table.rows] == [['a, "b"\nc', "1"], ["d", "0"]]


def test_json_and_json_lines(tmp_path):
    rows = [{"text": "a", "label": 1}, {"label": 0, "text": "b"}]
    whole = read_table(write(tmp_path / "a.json", json.dumps(rows)))
    lines = read_table(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n"))
    assert whole.rows == lines.rows == [(1, ["a", 1]), (2, ["b", 0])]


@pytest.mark.parametrize("packer", [lzma, gzip])
def test_packed_files_read_as_plain_ones(tmp_path, packer):
    suffix = {lzma: "xz", gzip: "gz"}[packer]
    with packer.open(tmp_path / f"a.tsv.{suffix}", "wt") as file:
        file.write("text\tlabel\na\t1\n")
    assert read_table(tmp_path / f"a.tsv.{suffix}").rows == [(2, ["a", "1"])]


def test_a_file_without_a_header(tmp_path):
    table = read_table(write(tmp_path / "a.tsv", "x\t1\n"), columns=("source", "label"))
    assert table.rows == [(1, ["x", "1"])] and table.column("label") == 1


def test_short_rows_are_left_out_where_allowed(tmp_path):
    file = write(tmp_path / "a.tsv", "a\tb\n1\t2\n3\n4\t5\n")
    assert len(read_table(file, skip_short=True).rows) == 2
    with pytest.raises(CuttlefishError, match=r"a.tsv, line 3: 1 fields, and there are 2 columns \(a, b\)"):
        read_table(file)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b'a,b\n1,"2\n', "line 2"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: 3 fields, and there are 2 columns"),
        ("a.tsv", b"a\tb\n\xff\t1\n", "no text in UTF-8"),
        ("a.tsv", b"a\tb\n", "has no rows"),
        ("a.tsv", b"", "has no rows"),
        ("a.json", b"{}", "must hold a list"),
        ("a.json", b"[\n1]", "line 1: not an object"),
        ("a.json", b"[\n{},", "line 2: not JSON"),
        ("a.jsonl", b'{"a": 1}\n{"b": 2}\n', "line 2: no a, which the first row has"),
        ("a.jsonl", b'{"a": 1}\n\n{"a"\n', "line 3: not JSON"),
        ("a.tsv.xz", b"no xz", "cannot read"),
        ("a.parquet", b"", "none of the files that can be read"),
    ],
)
def test_a_broken_file_ends_in_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CuttlefishError) as caught:
        read_table(tmp_path / name)
    assert said in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CuttlefishError, match="cannot read .*no.csv: No such file"):
        read_table(tmp_path / "no.csv")


def test_a_missing_column_is_told_the_nearest(tmp_path):
    table = read_table(write(tmp_path / "a.csv", "text,label\na,1\n"))
    with pytest.raises(CuttlefishError, match="no column texts .*did you mean text?"):
        table.column("texts")
