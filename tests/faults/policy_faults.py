"""Limit policies with exactly one fault each, on the kit; run by test_kit_faults.py, which says what has to fail.

The policy that is made worse is the one that `ralph plugins new acme --kind policy` writes.
"""

import time
from datetime import datetime
from time import time as clock

import pytest
from ralph_acme.policy import AcmePolicy

from ralph_core import Allow, Deny, MomentKind, Pause, Provider, Stop
from ralph_core.testing.policies import LimitPolicyContract

DAY = 86_400


class Base(LimitPolicyContract):
    able = ()

    def __init_subclass__(cls):
        if "rule" in vars(cls):
            globals()[f"Policy_{cls.__name__}"] = cls.rule
            model = "ralph_acme.settings:AcmeSettings"
            cls.provider = Provider("acme", "one", f"{__name__}:Policy_{cls.__name__}", model, frozenset(cls.able))

    @pytest.fixture
    def settings(self):
        return {"opens": 8, "closes": 10}


class Test_none(Base):
    rule = AcmePolicy


class Test_raises(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            if moment.kind is MomentKind.USAGE and state.spend.cost + 1 > 0:
                return Allow()
            return super().judge(moment, state)


class Test_says_nothing(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return super().judge(moment, state) if moment.kind is MomentKind.ITERATION else None


class Test_takes_long(Base):
    class rule(AcmePolicy):
        deadline = 1.0

        def judge(self, moment, state):
            if moment.kind is MomentKind.FINISHED and not state.iteration:
                time.sleep(1.3)
            return super().judge(moment, state)


class Test_has_no_reason(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return Stop("") if state.failures > 1000 else super().judge(moment, state)


class Test_waits_for_the_past(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return Pause(60.0, "an hour") if state.failures > 1000 else super().judge(moment, state)


class Test_counts_questions(Base):
    class rule(AcmePolicy):
        last = None

        def judge(self, moment, state):
            again, self.last = (moment, state) == self.last, (moment, state)
            return Stop("asked twice") if again else super().judge(moment, state)


class Test_looks_at_the_clock(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return Stop(f"day {int(time.time() / DAY)}")


class Test_has_a_clock_of_its_own(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return Stop(f"day {int(clock() / DAY)}")


class Test_looks_at_the_calendar(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            return Stop(f"on {datetime.now().date()}")  # noqa: DTZ005


class Test_changes_the_state(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            state.given["asked"] = True
            return super().judge(moment, state)


class Test_writes_files(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            (self.context.workspace / "judged").write_text("yes")
            return super().judge(moment, state)


class Test_judges_tools_in_secret(Base):
    class rule(AcmePolicy):
        def judge(self, moment, state):
            bad = moment.kind is MomentKind.TOOL and moment.event.name == "Bash"
            return Deny("no shell") if bad else super().judge(moment, state)


class Test_promises_to_judge_tools(Base):
    able = ("tools",)
    rule = AcmePolicy


class Test_is_not_concerned(Base):
    class rule(AcmePolicy):
        concerned = False
