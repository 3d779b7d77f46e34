"""The policy on the conformance kit, and what it is for."""

import time
from datetime import datetime, timezone

import pytest
from ralph_office_hours.policy import OfficeHours, OfficeHoursPolicy

from ralph_core import Allow, Context, Moment, MomentKind, Pause
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.policies import LimitPolicyContract
from ralph_core.testing.values import NOON, fresh_state

EVERY_DAY = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.fixture(autouse=True)
def in_utc(monkeypatch):
    """Office hours are in local time, and the states of the kit are of a Friday, 12:00 UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class TestPlugin(PluginContract):
    plugin = "office-hours"


class TestPolicy(LimitPolicyContract):
    provider = "office_hours"

    @pytest.fixture
    def settings(self):
        return {"begin": "00:00", "end": "23:59", "days": EVERY_DAY}


@pytest.mark.parametrize(
    ("settings", "until"),
    [
        ({}, "17:30"),
        ({"begin": "08:00", "end": "12:30"}, "12:30"),
        ({"begin": "13:00"}, None),
        ({"end": "12:00"}, None),
        ({"days": ["sat"]}, None),
    ],
)
def test_it_waits_in_office_hours(tmp_path, settings, until):
    policy = OfficeHoursPolicy(OfficeHours.model_validate(settings), Context(tmp_path, tmp_path, {}))
    verdict = policy.judge(Moment(MomentKind.ITERATION), fresh_state())
    if until is None:
        assert verdict == Allow()
    else:
        assert isinstance(verdict, Pause)
        assert verdict.until > NOON
        assert f"{datetime.fromtimestamp(verdict.until, timezone.utc):%H:%M}" == until
    assert policy.judge(Moment(MomentKind.TICK), fresh_state()) == Allow()
