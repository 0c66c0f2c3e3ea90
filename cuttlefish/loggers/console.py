"""Console output of a run: progress bars on a terminal, else one plain line per epoch."""

import sys
from collections import deque
from collections.abc import Iterator
from statistics import mean
from time import monotonic
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from cuttlefish.display.format import (
    UNKNOWN,
    duration,
    named,
    one_line,
    percent,
    printable,
    scored,
    short_count,
)
from cuttlefish.display.screen import profile_table
from cuttlefish.display.summary import WIDTH, as_text, run_summary
from cuttlefish.loggers.base import Logger, RunInfo
from cuttlefish.record.fields import Record
from cuttlefish.record.folder import PLOTS, read_profile, read_ranks


def console_logger(stream: TextIO | None = None) -> Logger:
    """Return the console logger for `stream` (default: standard output)."""
    stream = stream or sys.stdout
    terminal = Console(file=stream)
    is_terminal = stream.isatty() and not terminal.is_dumb_terminal
    return TerminalConsole(terminal) if is_terminal else PlainConsole(stream)


class PlainConsole(Logger):
    """Logger of lines without colours or control characters, for logs and pipes."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.trained = self.last_epoch = 0
        self.rank_ratio: float | None = None

    def start(self, run: RunInfo) -> None:
        self.run = run
        self.trained = run.resumed_from
        self.say("\n".join(map(one_line, describe(run))))

    def phase(self, name: str, epochs: int) -> None:
        self.last_epoch = self.trained + epochs
        self.say(f"phase {name}: up to {epochs} epochs")

    def epoch(self, row: dict[str, Any]) -> None:
        self.trained = row["epoch"]
        last = max(self.last_epoch, row["epoch"])
        number, seconds = f"{row['epoch']:>{len(str(last))}}/{last}", duration(sum(row["seconds"].values()))
        self.say(f"epoch {number}  {self.figures(row)}  {seconds}")

    def ranks(self, rows: list[dict[str, Any]]) -> None:
        self.rank_ratio = mean(row["scaled_rank"] / row["full_rank"] for row in rows) if rows else None

    def profile(self, profile: dict[str, Any]) -> None:
        self.show(profile_table(profile))

    def message(self, text: str) -> None:
        self.say(f">> {text}")

    def finish(self, record: Record) -> None:
        self.show(run_summary(record, read_profile(self.run.folder), read_ranks(self.run.folder)))
        plots = sorted((self.run.folder / PLOTS).glob("*.png"))
        self.say("\n".join([f"folder  {self.run.folder}", *(f"plot    {path}" for path in plots)]))

    def figures(self, row: dict[str, Any]) -> str:
        """Return an epoch's metrics, with the mean rank ratio if ranks were estimated before it."""
        figures = [f"lr {row['lr']:.3g}", _side(row, "train"), _side(row, "test")]
        figures.append(f"params {short_count(row['params_total'])}")
        if self.rank_ratio is not None:
            figures.append(f"rank ratio {self.rank_ratio:.2f}")
        self.rank_ratio = None
        return "  ".join(figures)

    def show(self, renderable: RenderableType) -> None:
        self.say(as_text(renderable))

    def say(self, text: str) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(printable(text).encode(encoding, "replace").decode(encoding) + "\n")
        self.stream.flush()


class TerminalConsole(PlainConsole):
    """Logger with progress bars for epochs and steps, above which other output scrolls."""

    def __init__(self, console: Console):
        super().__init__(console.file)
        self.console = console
        self.bars: Bars | None = None
        self.laps: deque[float] = deque(maxlen=10)

    def phase(self, name: str, epochs: int) -> None:
        self.last_epoch = self.trained + epochs
        self.close()
        self.bars = Bars(self.console)
        self.epochs = self.bars.add_task(name, total=epochs, left="")
        self.steps = self.bars.add_task("epoch", total=None, left="")
        self.bars.start()
        self.lap = monotonic()

    def epoch_begin(self, steps: int, label: str) -> None:
        if self.bars:
            self.bars.reset(self.steps, total=steps, description=label)

    def step(self) -> None:
        if self.bars:
            self.bars.advance(self.steps)

    def epoch(self, row: dict[str, Any]) -> None:
        self.trained = row["epoch"]
        if self.bars:
            self.laps.append(monotonic() - self.lap)
            self.lap = monotonic()
            left = max(self.last_epoch - self.trained, 0) * mean(self.laps)
            self.bars.figures = self.figures(row)
            self.bars.update(self.epochs, advance=1, left=f"{duration(left)} left")

    def finish(self, record: Record) -> None:
        self.close()
        super().finish(record)

    def show(self, renderable: RenderableType) -> None:
        self.console.print(renderable, width=min(WIDTH, self.console.width))

    def say(self, text: str) -> None:
        style = "cyan" if text.startswith(">>") else ""
        self.console.print(Text(printable(text), style=style), soft_wrap=True)

    def close(self) -> None:
        if self.bars:
            self.bars.stop()
            self.bars = None


class Bars(Progress):
    """Progress bars below a line of metrics."""

    figures = ""

    def __init__(self, console: Console):
        left = TextColumn("{task.fields[left]}")
        super().__init__(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left, console=console
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        yield Text(self.figures, no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()


def describe(run: RunInfo) -> list[str]:
    """Return a description of the run in three lines, from the resolved config."""
    config = run.config
    model, data, recipe, trainer, method = (
        config.get(group, {}) for group in ("model", "data", "recipe", "trainer", "method")
    )
    choices = {"preset": method.get("preset"), "width": model.get("width")}
    choices |= {name: config.get(name) for name in ("seed", "scale")}
    training = {"recipe": recipe.get("name"), "epochs": recipe.get("epochs")}
    training["batch"] = recipe.get("batch_size")
    training |= {name: trainer.get(name) for name in ("device", "devices", "precision")}
    resumed = f", resumed after epoch {run.resumed_from}" if run.resumed_from else ""
    return [
        f"{model.get('name')} on {data.get('name')} with {method.get('name')} · {named(choices)}",
        named(training),
        f"run {run.run_key} in {run.folder}{resumed}",
    ]


def _side(row: dict[str, Any], side: str) -> str:
    """Return loss and headline metric, if measured: `test 0.462 79.04 %`; train has accuracy only."""
    loss, metric = row.get(f"{side}_loss"), row.get("metric") or "accuracy"
    words = [side, UNKNOWN if loss is None else f"{loss:.3f}"]
    if side == "train" or metric == "accuracy":
        accuracy = row.get(f"{side}_accuracy")
        words += [percent(accuracy)] if accuracy is not None or metric == "accuracy" else []
    else:
        words.append(scored(metric, (row.get("metrics") or {}).get(metric)))
    return " ".join(words)
