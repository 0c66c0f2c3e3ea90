"""`make estimate`: hours and cost of Tables 2 to 4 by device, from measured steps.

    python -m scripts.estimate                                  on 1 and on 8 devices
    python -m scripts.estimate --devices 1,4 --price H200=3.50,A100=1.80
    python -m scripts.estimate table3 --switch 0.3              were E 0.3 of the epochs

A cell is full rank against Cuttlefish with the public code's settings. Its E is that of its finished runs,
else the least that the stability test allows, with which the saving is the largest. The steps are those of
results/bench/models-*.json, on ready input, BERT's at 128 tokens. Nothing but steps is counted, and several
devices are taken to be as many times as fast. Prices are yours, a device-hour.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cuttlefish.display.format import UNKNOWN, times
from cuttlefish.errors import CuttlefishError
from cuttlefish.evidence.benches import Bench, load_benches
from cuttlefish.evidence.records import load_evidence
from cuttlefish.planning.estimate import SCALE, Cell, Cost, cells
from cuttlefish.planning.spec import Spec, read_spec
from cuttlefish.report.claims.entry import load_claims
from cuttlefish.report.paper import CLAIMS, PAPER, TABLES
from scripts.command import new_parser, reporting_errors

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = ("bf16", "fp32")
NOT_MEASURED = "not measured"


@reporting_errors
def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    spec = read_spec(PAPER / TABLES)
    finished = [run.record for run in load_evidence(options.results / "records" / SCALE).finished]
    found = list(cells(spec, ROOT / "conf", options.tables, finished, options.switch))
    benches = [bench for bench in load_benches(options.results / "bench") if bench.what == "models"]
    newest = {bench.facts["hardware"]: bench for bench in benches}  # the last of each is the newest
    if not newest:
        print(
            "no step time of these networks is measured: `make gpu-slice` or `python -m scripts.bench "
            "models` writes results/bench/models-<hardware>.json\n"
        )
    stated = _stated(spec, options.tables)
    blocks = [(bench, precision) for bench in newest.values() for precision in PRECISIONS]
    for bench, precision in blocks or [(None, "")]:
        print("\n".join(_block(found, bench, precision, stated, options)))
    return 0


def _block(
    found: list[Cell], bench: Bench | None, precision: str, stated: dict[tuple[str, str], float],
    options: argparse.Namespace,
) -> Iterator[str]:  # fmt: skip
    """Yield the lines of one device and precision, as a Markdown table."""
    price = _price_of(bench, options.price)
    titles = ["model and data", "epochs", "E", "step: full → low rank", "device hours: full → Cuttlefish"]
    titles += [f"hours on {count}" for count in options.devices]
    titles += ["cost", "speed-up, estimated", "the paper"]
    rows = [_row(cell, bench, precision, price, stated, options.devices) for cell in found]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    if bench is not None:
        yield f"## {bench.facts['hardware']}, {precision}\n"
    yield from (_line(row, widths) for row in (titles, ["-" * width for width in widths], *rows))
    yield ""


def _row(
    cell: Cell, bench: Bench | None, precision: str, price: float | None,
    stated: dict[tuple[str, str], float], devices: Sequence[int],
) -> list[str]:  # fmt: skip
    e, cost = cell.switch, bench and cell.cost(bench, precision)
    head = [" on ".join(cell.choices), str(cell.epochs), f"{e.value:.3g} ({e.source})"]
    paper = stated.get(cell.choices)
    told = UNKNOWN if paper is None else times(paper)
    if not cost:
        return [*head, NOT_MEASURED, *[UNKNOWN] * (len(devices) + 3), told]
    step = (
        f"{1000 * cost.dense['step_s']:.3g} → {1000 * cost.low['step_s']:.3g} ms, batch {cost.dense['batch']}"
    )
    hours = [f"{_hours(cost.full_rank / count)} → {_hours(cost.cuttlefish / count)}" for count in devices]
    paid = UNKNOWN if price is None else f"{price * cost.full_rank:,.2f} → {price * cost.cuttlefish:,.2f}"
    return [*head, step, _both(cost), *hours, paid, _speedup(cost), told]


def _speedup(cost: Cost) -> str:
    bound = "at most " if cost.speedup > 1 else "at least "
    return f"{bound if cost.cell.switch.least else ''}{times(cost.speedup)}"


def _both(cost: Cost) -> str:
    saved = 100 * (1 - cost.cuttlefish / cost.full_rank)
    return f"{_hours(cost.full_rank)} → {_hours(cost.cuttlefish)} ({-saved:+.1f} %)"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"


def _stated(spec: Spec, tables: Sequence[str]) -> dict[tuple[str, str], float]:
    """Return the speed-ups that the paper states, by model and data as they are chosen."""
    claims = {claim["id"]: claim for claim in load_claims(PAPER / CLAIMS)}
    return {
        (item.model, item.data): claims[item.claim]["value"]
        for table in tables
        for item in spec.table(table).paper
        if item.quantity == "speedup"
    }


def _price_of(bench: Bench | None, prices: dict[str, float]) -> float | None:
    hardware = "" if bench is None else bench.facts["hardware"].lower()
    return next((price for name, price in prices.items() if name.lower() in hardware), None)


def _prices(text: str) -> dict[str, float]:
    try:
        return {name: float(price) for name, price in (pair.split("=") for pair in text.split(",") if pair)}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text} is no list of prices a device-hour, as in H200=3.50"
        ) from None


def _counts(text: str) -> list[int]:
    try:
        return [max(1, int(count)) for count in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no list of numbers of devices, as in 1,8") from None


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise CuttlefishError(f"--switch is E as a share of the epochs, from 0 to 1, not {text}")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = new_parser("estimate", __doc__)
    parser.add_argument(
        "tables", nargs="*", default=["table2", "table3", "table4"], help="of ImageNet and GLUE"
    )
    parser.add_argument("--devices", type=_counts, default=[1, 8], help="numbers of devices, as in 1,8")
    parser.add_argument(
        "--price", type=_prices, default={}, help="a device-hour's, as in H200=3.50,A100=1.80"
    )
    parser.add_argument("--switch", type=_share, help="E as a share of the epochs")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
