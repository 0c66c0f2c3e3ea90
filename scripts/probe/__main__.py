"""Try the library on networks of timm, torchvision and transformers; write what came out to docs/models.md.

python -m scripts.probe              all of them, random weights, on this CPU (a quarter of an hour)
python -m scripts.probe deit swin    only those of that name, or whose names contain a word; other rows stay
"""

import copy
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cuttlefish.auto import Cuttlefish
from cuttlefish.errors import CuttlefishError
from cuttlefish.lowrank.find import find_layers, low_rank_layers
from cuttlefish.lowrank.matrix import full_rank
from cuttlefish.lowrank.surgery import factorize
from cuttlefish.lowrank.trace import Batch, call_model, evaluating
from cuttlefish.record.atomic import write_atomic
from scripts.command import new_parser, reporting_errors
from scripts.probe.networks import NETWORKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
HEAD = """# Models as they are

Made by `python -m scripts.probe`, not by hand: each network as its library builds it, with random weights and
in a small size (fewer blocks where all are alike).

- *layers*: those with a weight matrix; *low-rank*: those that `Cuttlefish` chooses with k=1 and that get
  smaller at a quarter of full rank; *reason*: the most common one of those that stay dense
- *exact*: at full rank the outputs differ by less than 1e-4
- *trains*: within four steps of SGD gradients reach every factor and change some
- *compiles*: torch.compile (graphs forward and backward, no code generation) gives the same outputs and
  gradients for every factor
- *exports*: torch.export gives the same outputs
"""


@dataclass
class Row:
    network: str
    library: str
    layers: int = 0
    low_rank: int = 0
    parameters: str = "–"
    reason: str = "–"
    exact: str = "–"
    trains: str = "–"
    compiles: str = "–"
    exports: str = "–"

    def __str__(self) -> str:
        cells = vars(self).values()
        return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


@reporting_errors
def main(arguments: Sequence[str] | None = None) -> int:
    parser = new_parser("probe", __doc__)
    parser.add_argument("names", nargs="*", help="parts of names")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    chosen, page = options.names, options.page
    names = [name for _, name, _ in NETWORKS]
    for library, name, build in NETWORKS:
        if any(word == name or word not in names and word in name for word in chosen or [""]):
            row = str(probe(library, name, build))
            print(row, flush=True)
            write_row(page, name, row)
    return 0


def write_row(page: Path, name: str, row: str) -> None:
    """Put a row into the page's table in place of the network's earlier one, in the order of NETWORKS."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    rows[name] = row
    kept = [rows[name] for _, name, _ in NETWORKS if name in rows]
    columns = [field.name.replace("_", "-") for field in fields(Row)]
    table = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    write_atomic(page, "\n".join([HEAD, *table, *kept]) + "\n")


def probe(library: str, name: str, build: Any) -> Row:
    """Return a network's row; what fails is named in its column."""
    row = Row(name, library)
    torch.manual_seed(0)
    model, batch = build()
    found = find_layers(model)
    row.layers = len(found.layers) + len(found.refused)
    before = sum(parameter.numel() for parameter in model.parameters())
    try:
        whole = copy.deepcopy(model)
        cf = Cuttlefish(model, batch, k=1, switch_epoch=1, rank_ratio=0.25, guard=False)
        cf.epoch_end()
    except CuttlefishError as error:
        row.reason = str(error)[:120]
        return row
    low = low_rank_layers(model)
    after = sum(parameter.numel() for parameter in model.parameters())
    row.low_rank, row.parameters = len(low), f"{before / after:.2f}× fewer of {before / 1e6:.1f} M"
    reasons = Counter((found.refused | cf.kept_dense).values())
    row.reason = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(1)) or "–"
    row.exact = _tried(lambda: _exact(whole, list(low), batch))
    row.trains = _tried(lambda: _trains(model, batch))
    row.compiles = _tried(lambda: _compiles(model, batch))
    row.exports = _tried(lambda: _exports(model, batch))
    return row


def _tried(check: Any) -> str:
    try:
        return "yes" if check() else "no"
    except Exception as error:  # whatever a network of another library raises belongs into its row
        return f"no: {type(error).__name__}"


def _exact(model: nn.Module, names: list[str], batch: Batch) -> bool:
    with evaluating(model), torch.no_grad():
        before = list(_outputs(call_model(model, batch)))
        ranks = {name: full_rank(model.get_submodule(name).weight) for name in names}
        factorize(model, ranks, keep_dense=False)
        after = list(_outputs(call_model(model, batch)))
    pairs = zip(after, before, strict=True)
    return all((a - b).norm() <= 1e-4 * b.norm() + 1e-6 for a, b in pairs) and bool(low_rank_layers(model))


def _trains(model: nn.Module, batch: Batch) -> bool:
    """Take four steps: behind parts that start at zero, gradients come later than with the first."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    factors = [f.weight for layer in low_rank_layers(model).values() for f in (layer.first, layer.second)]
    before = [factor.detach().clone() for factor in factors]
    for _ in range(4):
        optimizer.zero_grad()
        losses = [(output.float() - 1).square().mean() for output in _outputs(call_model(model, batch))]
        torch.stack(losses).sum().backward()
        optimizer.step()
    reached = all(factor.grad is not None and bool(factor.grad.any()) for factor in factors)
    return reached and not all(torch.equal(*pair) for pair in zip(before, factors, strict=True))


def _compiles(model: nn.Module, batch: Batch) -> bool:
    torch.compiler.reset()
    model.eval()
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    ours = list(_outputs(call_model(compiled, batch)))
    with torch.no_grad():
        theirs = list(_outputs(call_model(model, batch)))
    torch.stack([(output.float() - 1).square().mean() for output in ours]).sum().backward()
    factors = [f.weight for layer in low_rank_layers(model).values() for f in (layer.first, layer.second)]
    return _same(ours, theirs) and all(factor.grad is not None for factor in factors)


def _exports(model: nn.Module, batch: Batch) -> bool:
    model.eval()
    words = () if isinstance(batch, dict) else batch if isinstance(batch, tuple) else (batch,)
    named = batch if isinstance(batch, dict) else None
    with torch.no_grad():
        program = torch.export.export(model, words, named, strict=False).module()
        ours = _outputs(program(*words, **(named or {})))
        return _same(ours, _outputs(call_model(model, batch)))


def _same(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    return all(torch.allclose(a, b, atol=1e-4, rtol=1e-3) for a, b in zip(ours, theirs, strict=True))


def _outputs(outputs: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
