import logging

from cuttlefish.loggers.base import Logger, Loggers


class Recorder(Logger):
    def __init__(self):
        self.seen = []

    def step(self):
        self.seen.append("step")

    def message(self, text):
        self.seen.append(text)

    def close(self):
        self.seen.append("closed")


class Broken(Recorder):
    def step(self):
        raise OSError("no space\nleft")


def test_calls_reach_every_logger_in_order():
    log = []

    class Named(Logger):
        def __init__(self, name):
            self.name = name

        def epoch(self, row):
            log.append((self.name, row["epoch"]))

    loggers = Loggers([Named("a"), Named("b")])
    loggers.epoch({"epoch": 1})
    loggers.epoch({"epoch": 2})
    assert log == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_raising_logger_is_dropped_and_the_others_go_on(caplog):
    first, broken, last = Recorder(), Broken(), Recorder()
    loggers = Loggers([first, broken, last])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            loggers.step()
        loggers.message("hello")
    assert first.seen == last.seen == ["step"] * 3 + ["hello"]
    assert broken.seen == ["closed"]
    (warning,) = caplog.records
    assert "Broken stopped at step (OSError: no space left)" in warning.getMessage()
    assert list(loggers) == [first, last]


def test_a_logger_that_cannot_even_close_is_dropped_quietly(caplog):
    class Stubborn(Broken):
        def close(self):
            raise RuntimeError("still no")

    loggers = Loggers([Stubborn()])
    loggers.step()
    assert not loggers
    assert len(caplog.records) == 1


def test_interrupts_are_not_swallowed():
    class Interrupted(Logger):
        def step(self):
            raise KeyboardInterrupt

    try:
        Loggers([Interrupted()]).step()
    except KeyboardInterrupt:
        return
    raise AssertionError("a logger's KeyboardInterrupt was swallowed")


def test_leaving_the_block_closes_all_after_an_error_too():
    logger = Recorder()
    try:
        with Loggers([logger]) as loggers:
            loggers.message("working")
            raise ValueError
    except ValueError:
        pass
    assert logger.seen == ["working", "closed"]


def test_the_fan_out_offers_every_event_of_a_logger():
    events = {name for name, member in vars(Logger).items() if callable(member) and not name.startswith("_")}
    assert events <= vars(Loggers).keys()
