import logging

from cuttlefish.loggers.base import Sink, Sinks


class Recorder(Sink):
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


def test_calls_reach_every_sink_in_order():
    log = []

    class Named(Sink):
        def __init__(self, name):
            self.name = name

        def epoch(self, row):
            log.append((self.name, row["epoch"]))

    sinks = Sinks([Named("a"), Named("b")])
    sinks.epoch({"epoch": 1})
    sinks.epoch({"epoch": 2})
    assert log == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_a_raising_sink_is_dropped_with_one_warning_and_the_others_go_on(caplog):
    first, broken, last = Recorder(), Broken(), Recorder()
    sinks = Sinks([first, broken, last])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sinks.step()
        sinks.message("hello")
    assert first.seen == last.seen == ["step"] * 3 + ["hello"]
    assert broken.seen == ["closed"]
    (warning,) = caplog.records
    assert "Broken stopped at step (OSError: no space left)" in warning.getMessage()
    assert list(sinks) == [first, last]


def test_a_sink_that_cannot_even_close_is_dropped_quietly(caplog):
    class Stubborn(Broken):
        def close(self):
            raise RuntimeError("still no")

    sinks = Sinks([Stubborn()])
    sinks.step()
    assert not sinks
    assert len(caplog.records) == 1


def test_interrupts_are_not_swallowed():
    class Interrupted(Sink):
        def step(self):
            raise KeyboardInterrupt

    try:
        Sinks([Interrupted()]).step()
    except KeyboardInterrupt:
        return
    raise AssertionError("a sink's KeyboardInterrupt was swallowed")


def test_leaving_the_block_closes_every_sink_also_after_an_error():
    sink = Recorder()
    try:
        with Sinks([sink]) as sinks:
            sinks.message("working")
            raise ValueError
    except ValueError:
        pass
    assert sink.seen == ["working", "closed"]


def test_the_fan_out_offers_every_event_of_a_sink():
    events = {name for name, member in vars(Sink).items() if callable(member) and not name.startswith("_")}
    assert events <= vars(Sinks).keys()
