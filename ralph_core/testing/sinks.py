"""What every audit sink has to hold, wherever the records go.

    class TestAcme(AuditSinkContract):
        provider = "acme"

        @pytest.fixture
        def settings(self, tmp_path):
            return {"path": str(tmp_path / "acme.db")}

A sink without the capability `query` needs another way to see what it took: then override `kept`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ralph_core.contracts import AuditSink, Capability, Context, Provider
from ralph_core.records import AuditFilter, AuditRecord, Severity, fields_of
from ralph_core.testing.killed import in_another_process
from ralph_core.testing.rules import Named, broken, built, clean_env, context_in, found, holds
from ralph_core.testing.values import hard_records, records, run_id

Kept = Callable[[AuditSink], Sequence[AuditRecord]]
FILTERS = (
    AuditFilter(run=run_id(1)),
    AuditFilter(type="tool.finished"),
    AuditFilter(type="tool.*"),
    AuditFilter(severity=Severity.WARNING),
    AuditFilter(limit=3),
    AuditFilter(run=run_id(0), after=4, limit=2),
    AuditFilter(tool="Bash"),
    AuditFilter(success=True),
    AuditFilter(success=False),
    AuditFilter(since="2025-11-22T00:00:00Z"),
    AuditFilter(until="2025-11-22T00:00:00Z"),
    AuditFilter(run="20990101-000000-000000"),
)


@dataclass(frozen=True)
class Opener:
    """Opens the sink under test: each time another instance on the same place."""

    provider: Provider[Any]
    settings: Mapping[str, Any]
    context: Context

    def __call__(self) -> AuditSink:
        sink: AuditSink = built("sink", self.provider, self.settings, self.context)
        sink.recover()
        return sink

    def declares(self, capability: Capability) -> bool:
        return capability in self.provider.capabilities


class AuditSinkContract:
    """The rules for audit sinks. Override `settings` if it needs any, and `kept` if it can't be queried."""

    provider: ClassVar[Named] = ""
    """What is tested: the name of an installed provider, or a `Provider` that no plugin declares yet."""
    lasting: ClassVar[bool] = True
    """Whether what was written outlives the process; False for a sink that keeps records in memory, for tests."""

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """To be overridden: the sink's section of the settings."""
        return {}

    @pytest.fixture
    def opened(self, settings: Mapping[str, Any], tmp_path: Path) -> Opener:
        provider = found("sink", self.provider)
        return Opener(provider, settings, context_in(tmp_path / "place", clean_env(tmp_path / "place")))

    @pytest.fixture
    def kept(self, opened: Opener) -> Kept:
        """To be overridden for a sink without the capability `query`: what arrived, oldest first, where it is kept."""
        if not opened.declares(Capability.QUERY):
            broken(
                f"what {opened.provider.name!r} took can't be seen: it does not declare `query`",
                mend="override the fixture `kept`: a function that takes the sink and returns the records that arrived",
            )
        return lambda sink: list(sink.query(AuditFilter()))

    # --- writing ---

    def test_keeps_records_in_order(self, opened: Opener, kept: Kept) -> None:
        """Records that come in batches are kept each once, in their order, with all of their fields."""
        sink, all_of_it = opened(), records(50)
        for start in range(0, 50, 7):
            sink.write(all_of_it[start : start + 7])
        sink.flush()
        _same(kept(sink), all_of_it, "fifty records, in batches of seven")
        sink.close()

    def test_keeps_hard_content(self, opened: Opener, kept: Kept) -> None:
        """Control characters, other scripts, half a surrogate pair and a megabyte are kept as they are."""
        sink = opened()
        sink.write(hard_records())
        sink.flush()
        _same(kept(sink), hard_records(), "control characters, other scripts, half a surrogate pair and a megabyte")
        sink.close()

    def test_goes_on_after_reopening(self, opened: Opener, kept: Kept) -> None:
        """A second instance on the same place goes on after what the first has written."""
        all_of_it = records(6)
        first = opened()
        first.write(all_of_it[:3])
        first.flush()
        first.close()
        second = opened()
        second.write(all_of_it[3:])
        second.flush()
        _same(
            kept(second), all_of_it if self.lasting else all_of_it[3:], "three records, and three by the next instance"
        )
        second.close()

    def test_can_be_closed_without_a_write(self, opened: Opener) -> None:
        """`flush` and `close` do nothing where nothing was written."""
        sink = opened()
        try:
            sink.flush()
            sink.close()
        except Exception as error:
            broken(
                f"flush and close, without a write before, raised {type(error).__name__}: {error}",
                mend="open what a sink writes to at the first write, and let flush and close do nothing before",
            )

    def test_an_empty_batch_is_nothing(self, opened: Opener, kept: Kept) -> None:
        """A batch without records is no record, and no error."""
        sink = opened()
        try:
            sink.write([])
        except Exception as error:
            broken(f"an empty batch raised {type(error).__name__}: {error}", mend="do nothing for an empty batch")
        _same(kept(sink), [], "an empty batch")
        sink.close()

    def test_what_was_flushed_outlives_kill_9(self, opened: Opener, kept: Kept) -> None:
        """Records whose `flush` had returned are there after kill -9, in order (unless `lasting` is False)."""
        if not self.lasting:
            return
        try:
            (told,) = in_another_process("kill writing", opened.provider, opened.settings, opened.context)
        except RuntimeError as error:
            broken(f"in another process: {error}", mend="keep all that a sink needs in its settings and context")
        sink = opened()
        arrived, wanted = list(kept(sink)), 3 * told["acknowledged"]
        holds(
            wanted and len(arrived) >= wanted,
            f"{wanted} records were flushed when kill -9 came, and {len(arrived)} are there",
            mend="in flush, hand all that was written to the operating system, and have it synced",
        )
        _same(arrived, records(len(arrived)), "records that were written until kill -9")

    def test_recovery_says_what_was_done(self, opened: Opener) -> None:
        """`recover` answers in words what it has mended: nothing, where nothing was broken."""
        sink: AuditSink = built("sink", opened.provider, opened.settings, opened.context)
        done = sink.recover()
        holds(
            isinstance(done, (list, tuple)) and not done,
            f"nothing was there to be mended, and recover() answered {done!r}",
            mend="answer what was mended, in words; () if nothing was",
        )

    def test_what_was_dropped_is_said(self, opened: Opener) -> None:
        """`dropped` is None for a run of which all records are there; of one that was pruned, its last record, or None."""
        sink, old = opened(), records(3, day=1)
        sink.write([*old, *records(3, run=1, day=23)])
        sink.flush()
        holds(
            sink.dropped(run_id(0)) is None,
            f"nothing was dropped, and dropped() answers {sink.dropped(run_id(0))!r}",
            mend="answer None for a run of which all records are there",
        )
        with suppress(NotImplementedError):  # there is a rule for that
            sink.prune("2025-11-20T00:00:00Z")
        told = sink.dropped(run_id(0))
        holds(
            told is None or (told.seq, told.hash, bool(told.where)) == (3, old[-1].hash, True),
            f"the run was pruned up to record 3, and dropped() answers {told!r}",
            mend="answer number and hash of the last record that was dropped, and why in words",
        )
        sink.close()

    # --- what is declared ---

    def test_query_is_what_is_declared(self, opened: Opener) -> None:
        """A sink can be asked for records if, and only if, it declares `query`."""
        sink = opened()
        sink.write(records(1))
        sink.flush()
        _declared(opened, Capability.QUERY, "query", lambda: list(sink.query(AuditFilter())))
        sink.close()

    def test_queries_are_answered(self, opened: Opener) -> None:
        """Every field of `AuditFilter` is heeded, alone and with others."""
        if not opened.declares(Capability.QUERY):
            return  # see test_query_is_what_is_declared
        sink, all_of_it = opened(), [*records(9), *records(9, run=1, day=23)]
        sink.write(all_of_it)
        sink.flush()
        for wanted in FILTERS:
            given = {name: value for name, value in vars(wanted).items() if value != getattr(AuditFilter(), name)}
            _same(list(sink.query(wanted)), list(wanted.of(all_of_it)), f"the query {given}")
        sink.close()

    def test_lines_are_kept_to_the_byte(self, opened: Opener) -> None:
        """`lines` gives `AuditRecord.line` to the byte if, and only if, the sink declares `verify`."""
        sink, all_of_it = opened(), [*records(3), *hard_records(run=1)]
        sink.write(all_of_it)
        sink.flush()
        lines = _declared(opened, Capability.VERIFY, "lines", lambda: list(sink.lines()))
        wanted = [record.line for record in all_of_it]
        holds(
            lines is None or [line for _, line in lines] == wanted,
            "lines() does not give the lines of the records to the byte",
            mend="keep AuditRecord.line as it is, and give it back so: else the chain can't be checked",
        )
        sink.close()

    def test_prune_forgets_old_runs(self, opened: Opener, kept: Kept) -> None:
        """`prune` forgets old runs, keeps the others, and counts, if, and only if, it is declared."""
        sink, new = opened(), records(3, run=1, day=23)
        sink.write([*records(3, day=1), *new])
        sink.flush()
        forgotten = _declared(opened, Capability.PRUNE, "prune", lambda: sink.prune("2025-11-20T00:00:00Z"))
        if forgotten is not None:
            holds(forgotten == 1, f"of two runs, one of them old, {forgotten} were pruned", mend="return how many runs")
            _same(kept(opened()), new, "pruned: the run that is not old")
        sink.close()


def _declared(opened: Opener, capability: Capability, method: str, call: Callable[[], Any]) -> Any:
    """What the call answers, if the capability is declared; without it, the method has to raise NotImplementedError."""
    declared = opened.declares(capability)
    try:
        answer = call()
    except NotImplementedError:
        answer = None
    except Exception as error:
        broken(f"{method}() raised {type(error).__name__}: {error}", mend=f"mend {method}")
    holds(
        (answer is not None) == declared,
        f"drift: the capability {capability.value} is {'' if declared else 'not '}declared, and {method}() "
        f"{'can' if answer is not None else 'can not'} be asked",
        mend=f"add {capability.value!r} to the provider's capabilities, or leave the method to the base class",
    )
    return answer


def _same(found_: Iterable[object], wanted: Sequence[AuditRecord], what: str) -> None:
    """The records are these, in this order, with all that was in them."""
    arrived = list(found_)
    ids = [getattr(each, "id", "?") for each in arrived]
    holds(
        ids == [record.id for record in wanted],
        f"{what}: {len(arrived)} records are there, not {len(wanted)}, or in another order: {ids[:5]}...",
        mend="keep each record once, and give them back in the order in which they came",
    )
    for one, other in zip(arrived, wanted, strict=True):
        assert isinstance(one, AuditRecord)
        different = [name for name, value in fields_of(one).items() if fields_of(other)[name] != value]
        holds(
            not different,
            f"{what}: of record {other.id}, these fields are otherwise: {', '.join(different)}",
            mend="keep records whole: AuditRecord.line has all of one, ralph_core.records.record_of reads it back",
        )
