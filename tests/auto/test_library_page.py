"""Every example of docs/library.md runs, one after the other."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def test_the_examples_of_the_page_run(caplog):
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) >= 6
    names = {"__name__": "examples"}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"library.md, example {number}", "exec"), names)
    assert names["cf"].switched and names["again"].switched
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
