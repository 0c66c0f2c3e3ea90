import lzma

import pytest

ROWS = {
    "CoLA": ("gj04\t{label}\t\tSentence {n} \"is quoted.", "", "01"),
    "SST-2": ("sentence {n} \t{label}", "sentence\tlabel", "01"),
    "MRPC": ("{label}\t7\t8\tThe first {n}.\tThe \"second {n}.", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "01"),
    "QQP-sample": ("1\t2\t3\tWhy {n}?\tHow {n}?\t{label}", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "01"),
    "STS-B": ("{n}\tA man {n}.\tA dog {n}.\t{label}", "index\tsentence1\tsentence2\tscore", ("0.0", "2.5", "5.000")),
    "RTE": ("{n}\tIt rains {n}.\tIt is {n}.\t{label}", "index\tsentence1\tsentence2\tlabel", ("entailment", "not_entailment")),
    "MNLI": (
        "{n}\tA {n}\tB {n}\t{label}", "index\tsentence1\tsentence2\tgold_label", ("entailment", "neutral", "contradiction"),
    ),
}  # fmt: skip
"""Folder: the form of a row, the header, the labels, with GLUE's own quirks."""


@pytest.fixture
def write_glue(tmp_path):
    """Writes a task in GLUE's own form, `rows` of each split, and returns the data root."""

    def write(folder, rows=6, splits=("train", "dev"), packed=False):
        form, header, labels = ROWS[folder]
        place = tmp_path / "root" / "glue" / folder
        place.mkdir(parents=True)
        for split in splits:
            lines = [form.format(n=f"{split} {n}", label=labels[n % len(labels)]) for n in range(rows)]
            text = "\n".join([*([header] if header else []), *lines]) + "\n"
            if packed and split == "train":
                (place / "train.tsv.xz").write_bytes(lzma.compress(text.encode()))
            else:
                (place / f"{split}.tsv").write_text(text, encoding="utf-8")
        return tmp_path / "root"

    return write
