import io
import os
import re
import sys

import pytest
from rich.console import Console

from cuttlefish.loggers.base import RunInfo
from cuttlefish.loggers.console import PlainConsole, TerminalConsole, console_logger

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def play(made_up, logger, folder, resumed_from=0):
    logger.start(made_up.run_info(folder, resumed_from))
    logger.profile(made_up.profile())
    logger.phase("train", made_up.EPOCHS - resumed_from)
    for trained in range(resumed_from, made_up.EPOCHS):
        if trained <= made_up.E:
            logger.ranks(made_up.rank_rows(trained))
        if trained == made_up.E:
            logger.message("switch at epoch 5 (settled)")
        logger.epoch_begin(2, f"train {trained + 1}")
        logger.step()
        logger.step()
        logger.epoch(made_up.epoch_row(trained + 1))
    logger.finish(made_up.record())
    logger.close()


def terminal_of(stream):
    return Console(file=stream, force_terminal=True, width=100, legacy_windows=False, _environ={})


@pytest.fixture
def plain(made_up, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # must not colour a log file
    made_up.write_run(tmp_path)
    stream = io.StringIO()
    logger = console_logger(stream)
    assert type(logger) is PlainConsole
    play(made_up, logger, tmp_path)
    return stream.getvalue()


def test_plain_output_has_no_control_characters(plain):
    assert plain and not CONTROL.search(plain)


@pytest.mark.parametrize("terminal", [False, True])
def test_names_of_a_config_bring_no_control_characters(made_up, tmp_path, terminal):
    stream = io.StringIO()
    console = terminal_of(stream)
    logger = TerminalConsole(console) if terminal else PlainConsole(stream)
    config = made_up.CONFIG | {"model": {"name": "\x1b]0;owned\x07res\nnet\r"}}
    logger.start(RunInfo(tmp_path, config, made_up.KEY))
    logger.message("\x1b[2Jmessage")
    assert "]0;ownedres net on cifar10" in stream.getvalue()
    assert "[2Jmessage" in stream.getvalue() and "\x1b[2J" not in stream.getvalue()
    assert "\x1b]" not in stream.getvalue() and "\x07" not in stream.getvalue()


def test_plain_output_has_one_line_an_epoch_in_order(plain):
    lines = [line for line in plain.splitlines() if line.startswith("epoch ")]
    assert [int(re.match(r"epoch +(\d+)/12 ", line)[1]) for line in lines] == list(range(1, 13))
    assert lines[2] == (
        "epoch  3/12  lr 0.1  train 0.767 66.67 %  test 0.833 60.00 %  params 11.2 M  rank ratio 0.51  30.0 s"
    )
    assert "params 3.39 M" in lines[6] and "rank ratio" not in lines[6]


def test_plain_output_tells_choice_profile_switch_and_result(plain):
    for words in ("resnet18 on cifar10 with cuttlefish", "τ = 1.5", ">> switch at epoch 5 (settled)"):
        assert words in plain
    assert "3.30× smaller" in plain and "78.93 %" in plain
    assert "hunter2" not in plain


def test_a_resumed_run_counts_on(made_up, tmp_path):
    made_up.write_run(tmp_path)
    stream = io.StringIO()
    play(made_up, PlainConsole(stream), tmp_path, resumed_from=7)
    assert "resumed after epoch 7" in stream.getvalue()
    assert "epoch  8/12 " in stream.getvalue() and "epoch  7/" not in stream.getvalue()


def test_missing_figures_are_dashes(made_up, tmp_path):
    stream = io.StringIO()
    logger = PlainConsole(stream)
    logger.start(made_up.run_info(tmp_path))
    logger.epoch(made_up.epoch_row(1) | {"test_loss": None, "test_accuracy": None})
    unknown = dict(accuracy_final=None, params_total=None, seconds=None, ranks=None)
    logger.finish(made_up.record("failed", error="Traceback\nValueError: no", **unknown))
    assert "test – –" in stream.getvalue()
    assert "failed" in stream.getvalue() and "ValueError: no" in stream.getvalue()


def test_a_stream_without_a_character_still_gets_its_line(made_up, tmp_path):
    made_up.write_run(tmp_path)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    play(made_up, PlainConsole(stream), tmp_path)
    written = stream.buffer.getvalue()
    assert b"epoch 12/12" in written and b"3.30? smaller" in written


def test_a_terminal_gets_bars_that_reach_the_end_and_the_summary(made_up, tmp_path):
    made_up.write_run(tmp_path)
    stream = io.StringIO()
    play(made_up, TerminalConsole(terminal_of(stream)), tmp_path)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "\x1b[" in stream.getvalue()
    assert "12/12" in shown and "0.00 s left" in shown and "test 0.208 75.00 %" in shown
    assert ">> switch at epoch 5" in shown and "3.30× smaller" in shown
    hidden, shown_again = (stream.getvalue().count(f"\x1b[?25{code}") for code in "lh")
    assert hidden == shown_again, "the cursor is given back"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_real_terminal_is_recognised(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    main, follower = os.openpty()
    with open(follower, "w") as stream:
        assert type(console_logger(stream)) is TerminalConsole
        monkeypatch.setenv("TERM", "dumb")
        assert type(console_logger(stream)) is PlainConsole
    os.close(main)
