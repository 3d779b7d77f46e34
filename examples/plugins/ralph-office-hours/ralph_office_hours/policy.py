"""A limit policy: no iteration begins in office hours."""

from datetime import datetime, time, timedelta, timezone
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ralph_core import Allow, LimitPolicy, Moment, MomentKind, Pause, RunState, Verdict

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class OfficeHours(BaseModel):
    """Settings of the policy `office_hours`, in local time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    begin: time = time(9)
    """When they begin."""
    end: time = time(17, 30)
    """When they end, on the same day."""
    days: tuple[Day, ...] = DAYS[:5]
    """On which days there are any."""


class OfficeHoursPolicy(LimitPolicy):
    """Asked before a run and before each iteration; in office hours it answers: wait until they are over."""

    settings: OfficeHours

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        # By the time that the state tells, not by the clock: the run may be replayed on another day.
        now = datetime.fromtimestamp(state.now, timezone.utc).astimezone()
        if moment.kind is not MomentKind.ITERATION or DAYS[now.weekday()] not in self.settings.days:
            return Allow()
        if not self.settings.begin <= now.time() < self.settings.end:
            return Allow()
        over = datetime.combine(now.date(), self.settings.end, now.tzinfo) + timedelta(seconds=1)
        return Pause(over.timestamp(), f"office hours, until {self.settings.end:%H:%M}")
