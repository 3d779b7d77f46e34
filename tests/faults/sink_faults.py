"""Audit sinks with exactly one fault each, on the kit; run by test_kit_faults.py, which says what has to fail.

The sink that is made worse is the one that `ralph plugins new acme --kind sink` writes.
"""

import sqlite3
from dataclasses import replace

import pytest
from ralph_acme.sink import AcmeSink

from ralph_core import Anchor, AuditFilter, Provider
from ralph_core.testing.sinks import AuditSinkContract
from ralph_core.testing.values import run_id

ABLE = ("query", "verify")


class Base(AuditSinkContract):
    able = ABLE

    def __init_subclass__(cls):
        if "sink" in vars(cls):
            globals()[f"Sink_{cls.__name__}"] = cls.sink
            model = "ralph_acme.settings:AcmeSettings"
            cls.provider = Provider("acme", "one", f"{__name__}:Sink_{cls.__name__}", model, frozenset(cls.able))


class Test_none(Base):
    sink = AcmeSink


class Test_backwards(Base):
    class sink(AcmeSink):
        def write(self, batch):
            super().write(batch[::-1] if len(batch) == 7 else batch)


class Test_cleans_up(Base):
    class sink(AcmeSink):
        def write(self, batch):
            hard = [each.run == run_id(0) and "\0" in each.message for each in batch]
            super().write([self.clean(each) if bad else each for each, bad in zip(batch, hard, strict=True)])

        @staticmethod
        def clean(record):
            return replace(record, message=record.message.replace("\0", ""))


class Test_begins_anew(Base):
    class sink(AcmeSink):
        begun = False

        def write(self, batch):
            if not self.begun:
                self.path.unlink(missing_ok=True)
            self.begun = True
            super().write(batch)


class Test_closes_what_is_not_open(Base):
    class sink(AcmeSink):
        stream = None

        def write(self, batch):
            super().write(batch)
            self.stream = sqlite3.connect(":memory:")

        def close(self):
            self.stream.close()


class Test_flushes_what_is_not_there(Base):
    class sink(AcmeSink):
        last = ()

        def write(self, batch):
            super().write(batch)
            self.last = batch or self.last

        def flush(self):
            self.last[-1]


class Test_counts_on_records(Base):
    class sink(AcmeSink):
        def write(self, batch):
            self.last = batch[-1]
            super().write(batch)


class Test_keeps_it_to_itself(Base):
    class sink(AcmeSink):
        waiting = ()

        def write(self, batch):
            self.waiting = (*self.waiting, *batch)

        def close(self):
            super().write(self.waiting)
            self.waiting = ()

        def lines(self):
            yield from super().lines()
            yield from (("waiting", record.line) for record in self.waiting)


class Test_mends_what_is_whole(Base):
    class sink(AcmeSink):
        def recover(self):
            return ("all is well",)


class Test_says_it_dropped_something(Base):
    class sink(AcmeSink):
        def dropped(self, run):
            return Anchor(1, "0" * 64, "rotated")


class Test_can_be_asked_in_secret(Base):
    able = ("verify",)
    sink = AcmeSink

    @pytest.fixture
    def kept(self):
        return lambda sink: list(sink.query(AuditFilter()))


class Test_heeds_no_limit(Base):
    class sink(AcmeSink):
        def query(self, wanted):
            return super().query(replace(wanted, limit=None))


class Test_writes_lines_of_its_own(Base):
    class sink(AcmeSink):
        def lines(self):
            return ((place, line.replace(b'"schema":', b'"schema": ')) for place, line in super().lines())


class Test_hides_its_lines(Base):
    able = ("query",)
    sink = AcmeSink


class Test_promises_to_prune(Base):
    able = (*ABLE, "prune")
    sink = AcmeSink


class Test_only_says_it_prunes(Base):
    able = (*ABLE, "prune")

    class sink(AcmeSink):
        def prune(self, before):
            return 1
