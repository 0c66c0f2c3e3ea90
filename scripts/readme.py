"""Write measured numbers into README.md, docs/measured.md and results/reduced.md, from what the runs left.

python -m scripts.readme            replaces each block `<!-- measured: NAME -->` ... `<!-- /measured -->`
python -m scripts.readme --check    changes nothing; exit code 1 if a block is out of date
"""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from cuttlefish.evidence.interval import t_interval
from cuttlefish.evidence.records import load_evidence
from cuttlefish.evidence.seeds import paired
from cuttlefish.record.atomic import write_atomic
from scripts.command import new_parser

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PAGES = ("README.md", "docs/measured.md", "results/reduced.md")
MARKED = re.compile(r"(<!-- measured: ([\w-]+) -->\n)(.*?)(<!-- /measured -->)", re.DOTALL)
STEP_ARMS = {"plain loop, dense": "plain loop, dense"}
STEP_ARMS |= {arm: f"ours, {arm}" for arm in ("dense", "rank 1/4", "rank 1/8")}
NETWORKS = {"resnet18": "ResNet-18", "vgg19": "VGG-19"}
MEASURED_ON = "intel-r-xeon-r-processor-2-cores"
"""The machine of the benches shown in docs/measured.md."""
TIMM_ON_3090 = {"resnet50": "1,218", "wide_resnet50_2": "669", "resmlp_s36": "510", "deit_base": "390"}
"""Training images a second that timm publishes for an RTX 3090 with AMP and channels_last."""


SHOWN = {
    "method": "method", "seeds": "seeds_text", "accuracy % (best)": "accuracy_text",
    "parameters": "params_total_text", "nonzero": "params_nonzero_text", "MACs": "macs_text",
    "E": "switch_epoch_text",
}  # fmt: skip
"""Columns of table 1 in the README, and their names in its CSV file."""


def reduced_rows() -> dict[str, list[dict[str, str]]]:
    """Return block -> the reduced rows of table 1 with a finished run."""
    blocks: dict[str, list[dict[str, str]]] = {}
    with (RESULTS / "tables/reduced/table1.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["seeds"]:
                blocks.setdefault(row["block"], []).append(row)
    return blocks


def reduced_results() -> str:
    """Return the reduced rows of table 1, one Markdown table per block."""
    parts = []
    for block, rows in reduced_rows().items():
        cells = [[row[key] for key in SHOWN.values()] for row in rows]
        parts.append(f"*{block}*\n\n{markdown(list(SHOWN), cells)}")
    return "\n".join(parts)


def claim_entries() -> list[dict[str, Any]]:
    return json.loads((RESULTS / "claims.json").read_text(encoding="utf-8"))["claims"]


def claims() -> str:
    """Return the number of claims per verdict at reduced scale, and which fail."""
    entries = claim_entries()
    counts = Counter(entry["reduced"]["verdict"] for entry in entries)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    failing = [entry for entry in entries if entry["reduced"]["verdict"].startswith("fails")]
    lines = [f"- Fails: {entry['what']}: {_found(entry['reduced'])}." for entry in failing]
    return "\n".join([f"The paper's {len(entries)} claims: {told}.", "", *lines, ""])


def judged_claims() -> str:
    """Return each claim judged at reduced scale, failures first, and which have not been run."""
    entries = claim_entries()
    rows = []
    for verdict in ("fails", "inconclusive", "holds"):
        for entry in entries:
            if entry["reduced"]["verdict"].startswith(verdict):
                rows.append([verdict, entry["what"].replace("|", "\\|"), *_reading(entry["reduced"])])
    left = [entry["id"] for entry in entries if entry["reduced"]["verdict"] == "not run"]
    table = markdown(["verdict", "the paper says", "accepted here", "ours [95 %]", "n"], rows)
    return f"{table}\nNot run yet: {', '.join(left) or 'nothing'}.\n"


def beside_cuttlefish() -> str:
    """Return each method's accuracy minus Cuttlefish's, paired by seed."""
    runs = {run.record.run_key: run for run in load_evidence(RESULTS / "records/reduced").finished}
    lines = []
    for block, rows in reduced_rows().items():
        of = {row["method"]: [runs[key] for key in row["run_keys"].split()] for row in rows}
        for method in of.keys() - {"Cuttlefish"} if "Cuttlefish" in of else ():
            pairs = paired(of[method], of["Cuttlefish"])
            points = [left.record.accuracy_final - right.record.accuracy_final for left, right in pairs]
            if points:  # some seed was run with both
                told = _with_interval(mean(points), t_interval(points), "+.2f")
                lines.append((mean(points), [block.split(",")[0], method, told, str(len(points))]))
    lines.sort(key=lambda line: (line[1][0], -line[0]))
    heads = ["network", "method", "points above Cuttlefish [95 %]", "seeds"]
    return markdown(heads, [cells for _, cells in lines])


def steps() -> str:
    """Return seconds per training step, by network and precision."""
    rows = [row for row in bench("steps") if row["width"] == 64]
    found = {(row["model"], row["precision"], row["arm"]): row for row in rows}
    settings = [(model, precision) for model in NETWORKS for precision in ("fp32", "bf16")]
    heads = ["a training step", *(f"{NETWORKS[model]} {precision}" for model, precision in settings)]
    cells = [
        [words, *(_step(found.get((*setting, arm)), arm) for setting in settings)]
        for arm, words in STEP_ARMS.items()
    ]
    return markdown(heads, cells)


def methods() -> str:
    """Return each method's training step relative to full rank, with the extremes over rounds."""
    arms: dict[str, dict[str, str]] = {}
    for row in bench("methods"):
        if not row["baseline"]:
            extremes = f"({row['lowest_ratio']:.2f}–{row['highest_ratio']:.2f})"
            arms.setdefault(row["arm"], {})[row["model"]] = f"{row['over_full_rank']:.2f} {extremes}"
    rows = [[f"`{arm}`", *(found.get(model, "") for model in NETWORKS)] for arm, found in arms.items()]
    return markdown(["a step over full rank's", *NETWORKS.values()], rows)


def networks() -> str:
    """Return steps of the networks of Tables 2 to 4, dense and low-rank, beside timm's published rates."""
    rows = []
    for path in sorted((RESULTS / "bench").glob("models-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        dense = {(row["model"], row["precision"]): row for row in found["rows"] if row["arm"] == "dense"}
        for row in found["rows"]:
            full = dense.get((row["model"], row["precision"]))
            if full is not None and row is not full:
                where = [f"{found['hardware']}, {row['precision']}", row["model"], str(row["batch"])]
                rows.append([*where, *_dense_and_low(full, row), TIMM_ON_3090.get(row["model"], "")])
    heads = ["device", "network", "batch", "dense step", "samples a second", "low-rank", "step"]
    return markdown([*heads, "timm, RTX 3090"], rows) if rows else "Not measured yet.\n"


def _dense_and_low(full: dict[str, Any], low: dict[str, Any]) -> list[str]:
    step = f"{1e3 * low['step_s']:.3g} ms ({full['step_s'] / low['step_s']:.2f}×)"
    return [f"{1e3 * full['step_s']:.3g} ms", f"{full['samples_per_s']:,.0f}", low["arm"], step]


def bench(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"bench/{name}-{MEASURED_ON}.json").read_text(encoding="utf-8"))["rows"]


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _found(reading: dict[str, Any]) -> str:
    return f"ours {reading['ours']:.3g} (n = {reading['n']}), accepted {_accepted(reading)}"


def _reading(reading: dict[str, Any]) -> list[str]:
    """Return what is accepted, our value with its interval, and n."""
    value = _with_interval(reading["ours"], reading["interval"], ".3g")
    return [_accepted(reading), value, str(reading["n"])]


def _with_interval(value: float, interval: Sequence[float] | None, form: str) -> str:
    """Return a value with its interval, which one seed does not have."""
    if not interval:
        return format(value, form)
    low, high = (format(limit, form) for limit in interval)
    return f"{value:{form}} [{low}, {high}]"


def _accepted(reading: dict[str, Any]) -> str:
    low, high = reading["parts"][0]["accept"]
    if low is None or high is None:
        return f"up to {high:g}" if low is None else f"above {low:g}"
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _step(row: dict[str, Any] | None, arm: str) -> str:
    if row is None:
        return ""
    return f"{row['step_s']:.2f} s" + (f" ({row['speedup_over_dense']:.1f}×)" if "rank" in arm else "")


BLOCKS: dict[str, Callable[[], str]] = {
    "beside-cuttlefish": beside_cuttlefish,
    "claims": claims,
    "judged-claims": judged_claims,
    "methods": methods,
    "networks": networks,
    "reduced-results": reduced_results,
    "steps": steps,
}


def renewed(text: str) -> str:
    """Return the page with every marked block rewritten."""
    return MARKED.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}{found[4]}", text)


def main(arguments: list[str] | None = None) -> int:
    parser = new_parser("readme", __doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, tell what is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        if renewed(text) != text:
            stale.append(page)
            if not check:
                write_atomic(ROOT / page, renewed(text))
    if stale and check:
        print(f"out of date, run `make readme`: {', '.join(stale)}", file=sys.stderr)
    return int(bool(stale and check))


if __name__ == "__main__":
    sys.exit(main())
