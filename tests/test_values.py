"""The core's own `dataclass` does what the standard one does."""

import dataclasses
from dataclasses import FrozenInstanceError, asdict, field, replace

import pytest

from ralph_core.state import RunState, Task
from ralph_core.values import dataclass


def made(how, **options):
    @how(**options)
    class Value:
        name: str
        size: int = 1
        place: str = field(default="", compare=False)
        secret: str = field(default="", repr=False)

    @how(**options)
    class More(Value):
        rest: tuple = ()

    return Value, More


@pytest.mark.parametrize("options", [{"frozen": True}, {"frozen": True, "kw_only": True}, {}])
class TestAsTheStandardOne:
    def test_equality_hash_and_words(self, options):
        found = []
        for how in (dataclass, dataclasses.dataclass):
            value, more = made(how, **options)
            one, same, other = value(name="a"), value(name="a", place="elsewhere"), value(name="a", size=2)
            wide = more(name="a", rest=(1,))
            hashed = [hash(each) == hash(one) for each in (same, other)] if options else value.__hash__
            found.append(
                (
                    [one == each for each in (one, same, other, wide, "a")],
                    hashed,
                    [repr(each) for each in (one, other, wide)],
                    [asdict(each) for each in (one, wide)],
                    replace(one, size=5) == value(name="a", size=5),
                )
            )
        assert found[0] == found[1]

    def test_it_is_frozen_if_it_is_to_be(self, options):
        value, _ = made(dataclass, **options)
        one = value(name="a")
        if options:
            with pytest.raises(FrozenInstanceError):
                one.size = 3
        else:
            one.size = 3
            assert one.size == 3

    def test_positions_are_as_they_are_to_be(self, options):
        value, _ = made(dataclass, **options)
        if options.get("kw_only"):
            with pytest.raises(TypeError):
                value("a")
        else:
            assert value("a").name == "a"


def test_a_state_is_one_of_them():
    state = RunState(run="r", workspace="/w", agent="a", task=Task("d"), started=1.0)
    assert state == replace(state) != replace(state, finished=1)
    assert "given" in repr(state)
    with pytest.raises(TypeError, match="unhashable"):
        hash(state)  # it holds a table
