"""What automatic low-rank training has done so far, as a table and as a plot."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cuttlefish.auto.core import Cuttlefish


def report_text(cf: "Cuttlefish") -> str:
    """Return a table: a line a layer with its ranks and what becomes of it, under a line on the whole."""
    state = f"low-rank since epoch {cf.switch_epoch} ({cf.reason})" if cf.switched else "full rank"
    if not cf.switched:
        state += f" after {cf.epoch} epochs" + (f" ({cf.reason})" if cf.reason else ", ranks still watched")
    final = cf.final_ranks()
    scaled = cf.tracker.scaled_ranks() if cf.tracker.history else {}
    lines = [f"{state}; K = {cf.k}", f"{'layer':<40}{'stable':>10}{'scaled':>8}{'full':>6}  decision"]
    for name in dict.fromkeys([*cf.tracker.history, *cf.layers, *cf.kept_dense]):
        values = cf.tracker.history.get(name)
        measured = f"{values[-1]:>10.2f}{scaled[name]:>8}{cf.tracker.full[name]:>6}" if values else " " * 24
        open_ = "is watched" if name in cf.layers and cf.reason is None else "dense"
        decision = f"rank {final[name]}" if name in final else cf.kept_dense.get(name, open_)
        lines.append(f"{name:<40}{measured}  {decision}")
    return "\n".join(lines)


def plot_ranks(cf: "Cuttlefish", axes: Any = None) -> Any:
    """Draw the rank of each layer over the epochs, as a share of full rank; return the matplotlib axes."""
    import matplotlib.pyplot as plt

    axes = axes or plt.subplots()[1]
    for name, values in cf.tracker.history.items():
        axes.plot([value / cf.tracker.full[name] for value in values], label=name, linewidth=1)
    if cf.switch_epoch is not None:
        axes.axvline(cf.switch_epoch, linestyle="--", color="black", label=f"switch (E = {cf.switch_epoch})")
    axes.set(xlabel="epoch", ylabel=f"{cf.tracker.metric} rank / full rank")
    if len(cf.tracker.history) <= 12:
        axes.legend(fontsize="small")
    return axes
