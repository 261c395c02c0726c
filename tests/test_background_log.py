"""A log whose writer never waits for its reader."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from datetime import UTC, datetime

import structlog

from mailing.background_log import ROOM, BackgroundLog
from tests.waiting import wait_until

where = ContextVar("where", default="nowhere")


class Sink:
    """What lines are written to, at once or when they may: a logger as structlog wants it."""

    def __init__(self):
        self.lines = []
        self.may_write = threading.Event()
        self.may_write.set()

    def msg(self, **line):
        self.may_write.wait(20)
        self.lines.append({"where": where.get(), **line})

    error = warning = msg


def a_log(sink):
    return BackgroundLog(structlog.wrap_logger(sink, processors=[lambda _, level, line: line | {"level": level}]))


def test_lines_are_written_in_their_order_with_all_that_was_said():
    sink, before = Sink(), datetime.now(UTC)
    log = a_log(sink)

    where.set("here")
    log.warning("not sent", message_id=1)
    log.error("unforeseen", message_id=2)
    log.close()

    moments = [datetime.fromisoformat(line.pop("timestamp")) for line in sink.lines]
    assert sink.lines == [
        {"level": "warning", "event": "not sent", "message_id": 1, "where": "here"},
        {"level": "error", "event": "unforeseen", "message_id": 2, "where": "here"},
    ]
    assert before <= moments[0] <= moments[1] <= datetime.now(UTC)


def test_whoever_writes_does_not_wait_and_the_moment_is_that_of_the_writing():
    sink = Sink()
    sink.may_write.clear()
    log = a_log(sink)

    log.warning("first")
    log.warning("second")
    written = datetime.now(UTC)
    assert sink.lines == []
    sink.may_write.set()
    log.close()

    assert [line["event"] for line in sink.lines] == ["first", "second"]
    assert all(datetime.fromisoformat(line["timestamp"]) <= written for line in sink.lines)


def test_lines_that_nobody_reads_are_kept_up_to_a_number_and_the_others_counted():
    sink = Sink()
    sink.may_write.clear()
    log = a_log(sink)

    log.warning("line", number=0)
    wait_until(lambda: log._lines.empty())  # one is held by the thread
    for number in range(1, ROOM + 4):
        log.warning("line", number=number)
    sink.may_write.set()
    log.close()

    *lines, last = sink.lines
    assert [line["number"] for line in lines] == list(range(ROOM + 1))
    assert (last["event"], last["missing"]) == ("the log was not read in time: lines are missing", 3)


def test_a_line_that_cannot_be_written_costs_none_of_the_others():
    class Broken(Sink):
        def warning(self, **line):
            raise BrokenPipeError

    sink = Broken()
    log = a_log(sink)

    log.warning("nobody is there")
    log.error("and now?")
    log.close()

    assert [line["event"] for line in sink.lines] == ["and now?"]


def test_where_nothing_was_written_there_is_nothing_to_wait_for_and_a_closed_log_goes_on():
    sink = Sink()
    log = a_log(sink)
    log.close()
    assert "log" not in {thread.name for thread in threading.enumerate()}

    log.warning("again")
    log.close()

    assert [line["event"] for line in sink.lines] == ["again"]
