"""Each standard limit: at which moments it strikes, and that it strikes at nothing else."""

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ralph_core.builtin import limits as policies
from ralph_core.builtin.plugin import ralph_choose_agent
from ralph_core.contracts import Context
from ralph_core.events import Failed, FailureKind, Tokens, UsageWindow
from ralph_core.state import Attempt, Limits, Progress, Quota, RunState, Spend, Task
from ralph_core.verdicts import Allow, Moment, MomentKind, Pause, Stop

NOW = 1_800_000_000.0
PLUGINS = Path(__file__).parents[1] / "plugins"
CAPTURES = sorted(PLUGINS.glob("*/tests/captures/*.jsonl"))
CLAUDE = PLUGINS / "ralph-claude/tests/captures"
EVENTS = "agents: {command: {output: events}}\n"


def state(**changes):
    base = RunState(run="r", workspace="/w", agent="a", agents=("a",), task=Task(""), started=NOW, now=NOW)
    limits = changes.pop("limits", {})
    return replace(base, limits=Limits(**limits), **changes)


def judge(policy, kind, state):
    context = Context(Path("/w"), Path("/w/.agent"), {})
    return policy(None, context).judge(Moment(MomentKind(kind)), state)


EVERY = list(MomentKind)


class TestTokensAndCost:
    @pytest.mark.parametrize("kind", EVERY)
    def test_are_judged_at_every_moment(self, kind):
        over = state(limits={"tokens": 100, "cost": 1.0}, spend=Spend(Tokens(50, 30, 15, 5), 1.0))
        assert judge(policies.TokenLimit, kind, over) == Stop("100 of 100 tokens are used up")
        assert judge(policies.CostLimit, kind, over) == Stop("$1.0000 of $1 are used up")

    @pytest.mark.parametrize("spend", [Spend(), Spend(Tokens(99), 0.999), Spend(None, None, 5)])
    def test_allow_what_is_below_and_what_nobody_knows(self, spend):
        for kind in EVERY:
            assert judge(policies.TokenLimit, kind, state(limits={"tokens": 100}, spend=spend)) == Allow()
            assert judge(policies.CostLimit, kind, state(limits={"cost": 1.0}, spend=spend)) == Allow()

    def test_a_fraction_of_a_cent_that_adding_up_has_lost_does_not_count(self):
        spent = Spend(cost=sum([0.1] * 3) - 1e-9)
        assert isinstance(judge(policies.CostLimit, "usage", state(limits={"cost": 0.3}, spend=spent)), Stop)

    def test_an_estimate_is_called_one(self):
        spent = Spend(Tokens(1), 2.0, 0, 0.5)
        assert judge(policies.CostLimit, "usage", state(limits={"cost": 1}, spend=spent)).reason.startswith(
            "about $2.0000"
        )


class TestRate:
    LIMIT = {"iterations_per_hour": 2}

    def test_waits_until_the_oldest_of_them_is_an_hour_ago(self):
        busy = state(limits=self.LIMIT, starts=(NOW - 3000, NOW - 10), iteration=2, finished=2)
        assert judge(policies.RateLimit, "iteration", busy) == Pause(NOW + 600, "2 iterations an hour are used up")
        assert judge(policies.RateLimit, "iteration", replace(busy, now=NOW + 600)) == Allow()

    @pytest.mark.parametrize("kind", [kind for kind in EVERY if kind is not MomentKind.ITERATION])
    def test_is_judged_before_an_iteration_only(self, kind):
        assert judge(policies.RateLimit, kind, state(limits=self.LIMIT, starts=(NOW, NOW))) == Allow()

    def test_a_repeated_iteration_is_not_another_one(self):
        assert (
            judge(policies.RateLimit, "iteration", state(limits=self.LIMIT, starts=(NOW, NOW), iteration=1)) == Allow()
        )

    def test_is_off_by_default(self):
        assert judge(policies.RateLimit, "iteration", state(starts=(NOW,) * 50)) == Allow()

    def test_makes_a_run_wait(self, ralph):
        ralph.settings("max_iterations_per_hour: 2\n")
        agent = ralph.agent("echo more")
        done = ralph.run(agent, "--max-runtime", "3")
        assert done.returncode == 3
        assert "(by runtime)" in done.stdout
        assert agent.calls == 2
        (wait,) = [record for record in ralph.records() if record["type"] == "wait.started"]
        assert wait["message"] == "2 iterations an hour are used up"
        assert len(ralph.state()["starts"]) == 2


class TestProgress:
    SAME = "I could not find out why test 17 fails; I will look at it again in the next iteration, from the start."

    def test_counts_what_repeats_itself_and_starts_anew_with_any_change(self):
        first = Progress().after(self.SAME).seen("tree")
        second = first.after(self.SAME).seen("tree")
        assert (first.idle, second.idle) == (0, 0), "nothing was there to compare with"
        third = second.after(self.SAME.replace("17", "23")).seen("tree")
        assert third.idle == 1
        assert third.after(self.SAME).seen("tree").idle == 2
        assert third.after(self.SAME).seen("another tree").idle == 0
        assert third.after("Found it: the cache was never cleared.").seen("tree").idle == 0

    def test_counts_what_was_not_looked_at_when_nothing_has_changed_by_the_next_look(self):
        unseen = Progress().after(self.SAME).after(self.SAME).seen("tree").after(self.SAME).after(self.SAME)
        assert (unseen.idle, unseen.unseen) == (0, 2)
        assert unseen.after(self.SAME).seen("tree").idle == 3
        assert unseen.after(self.SAME).seen("another tree") == Progress(0, "another tree", self.SAME)

    def test_only_the_answers_count_where_the_store_does_not_see_the_files(self):
        progress = Progress()
        for _ in range(4):
            progress = progress.after(self.SAME).seen(None)
        assert progress.idle == 2

    def test_the_files_are_looked_at_when_a_limit_is_near_and_not_each_time(self, ralph):
        calls = ralph.root / "calls"
        ralph.program("git", f'#!/bin/sh\necho "$@" >> "{calls}"\nexec {shutil.which("git")} "$@"\n')
        ralph.settings("max_no_progress: 6\ncheckpoint_interval: 50\n")
        done = ralph.run("cat > /dev/null; echo x >> log; echo same", "-i", "16")
        assert "16 of 16 iterations are used up" in done.stdout
        looks = calls.read_text().count(" add -A")
        assert 4 <= looks <= 7, "the first snapshot twice, the last one, and a look for every five iterations"

    def test_what_a_snapshot_saw_is_not_looked_at_again(self, ralph):
        calls = ralph.root / "calls"
        ralph.program("git", f'#!/bin/sh\necho "$@" >> "{calls}"\nexec {shutil.which("git")} "$@"\n')
        ralph.settings("max_no_progress: 3\ncheckpoint_interval: 1\n")
        done = ralph.run("cat > /dev/null; echo same", "-i", "16")
        assert "changed no file" in done.stdout, done.stdout
        assert calls.read_text().count(" add -A") == ralph.state()["finished"] + 1, "the first one, and one after each"

    @pytest.mark.parametrize(
        ("one", "other", "same"),
        [
            ("Done.", "Done.", True),
            ("Did step 3 of 9", "Did step 4 of 9", True),
            ("", "", True),
            ("Done.", "", False),
            ("Fixed the parser.", "Fixed the printer.", False),
            (SAME, SAME + " Promise!", True),
        ],
    )
    def test_answers_are_the_same_but_for_figures_and_a_word_in_ten(self, one, other, same):
        assert Progress(answer=one).repeats(other) is same

    def test_stops_and_warns_one_before(self):
        def after(idle, **limits):
            return judge(policies.NoProgressLimit, "finished", state(limits=limits, progress=Progress(idle, "t", "x")))

        assert after(1, no_progress=3) == Allow()
        warned = after(2, no_progress=3)
        assert isinstance(warned, Allow)
        assert warned.reason.endswith("after 3 the run stops")
        assert isinstance(after(3, no_progress=3), Stop)
        assert isinstance(after(1, no_progress=1), Stop)
        assert after(0, no_progress=1) == Allow()
        assert after(99, no_progress=None) == Allow()

    def test_an_agent_that_gets_nowhere_is_stopped(self, ralph):
        ralph.settings("max_no_progress: 2\n")
        agent = ralph.agent("echo still at it")
        done = ralph.run(agent)
        assert done.returncode == 3
        assert "no progress: the last 2 iterations changed no file and ended with the same words" in done.stdout
        assert agent.calls == 4
        warned, stopped = [record for record in ralph.records() if record["type"] == "verdict"]
        assert (warned["data"]["verdict"], stopped["data"]["verdict"]) == ("allow", "stop")
        assert "no_progress: " in done.stderr

    def test_whoever_changes_a_file_may_say_the_same_for_ever(self, ralph):
        ralph.settings("max_no_progress: 1\n")
        done = ralph.run("cat > /dev/null; echo x >> log; echo Done.", "-i", "5")
        assert "5 of 5 iterations are used up" in done.stdout
        assert ralph.git("show", f"{ralph.snapshots()[-1]}:log").count("x") == 5

    def test_whoever_says_something_else_may_leave_the_files_alone(self, ralph):
        ralph.settings("max_no_progress: 1\n")
        steps = [f"echo {words}" for words in ("one", "two", "three", "four")]
        assert "4 of 4 iterations" in ralph.run(ralph.agent(*steps), "-i", "4").stdout

    def test_ignored_files_and_ralphs_own_are_no_progress(self, ralph):
        ralph.settings("max_no_progress: 1\n")
        ralph.write(".gitignore", "*.log\n")
        done = ralph.run("cat > /dev/null; date >> a.log; date >> .agent/scratchpad.md; echo same", "-i", "9")
        assert "(by no_progress)" in done.stdout

    def test_looking_at_the_files_does_not_spoil_the_snapshots(self, ralph):
        ralph.settings("checkpoint_interval: 3\n")
        ralph.run("cat > /dev/null; echo x > new-$RALPH_ITERATION; echo same", "-i", "6")
        taken = [record["data"]["changed"] for record in ralph.records() if record["type"] == "checkpoint.finished"]
        assert taken == [None, 3, 3] or taken[1:] == [3, 3]

    def test_a_store_that_does_not_see_files_goes_by_the_answers_and_says_so(self, ralph):
        ralph.settings("max_no_progress: 1\n")
        done = ralph.run("cat > /dev/null; echo x >> log; echo Done.", "--no-git")
        assert "the last 1 iterations ended with the same words" in done.stdout
        assert "store local does not see the files: max_no_progress goes by the agent's answers alone" in done.stderr


def quota(status="rejected", agent="a", resets_at=NOW + 100, share=None, seen=NOW, window="five_hour"):
    return Quota(agent, window, status, share, resets_at, seen)


class TestUsageWindow:
    """From structured events only."""

    def test_waits_until_a_used_up_window_resets(self):
        verdict = judge(policies.UsageWindowLimit, "iteration", state(quotas=(quota(),)))
        assert verdict == Pause(NOW + 101, "the quota of a is used up (five_hour rejected)")
        assert judge(policies.UsageWindowLimit, "iteration", state(quotas=(quota(),), now=NOW + 101)) == Allow()

    def test_the_latest_of_several_windows_counts(self):
        both = (quota(), quota(resets_at=NOW + 9000, window="seven_day"))
        assert judge(policies.UsageWindowLimit, "run", state(quotas=both)).until == NOW + 9001

    def test_looks_again_after_a_while_when_nobody_knows_until_when(self):
        assert judge(policies.UsageWindowLimit, "run", state(quotas=(quota(resets_at=None),))).until == NOW + 300

    @pytest.mark.parametrize(
        ("share", "at", "spent"),
        [(0.93, 1.0, False), (0.93, 0.95, False), (0.93, 0.9, True), (1.0, 1.0, True), (None, 0.1, False)],
    )
    def test_a_share_is_compared_with_the_setting(self, share, at, spent):
        told = state(quotas=(quota("allowed_warning", share=share),), limits={"window": at})
        assert isinstance(judge(policies.UsageWindowLimit, "iteration", told), Pause) is spent

    def test_the_iteration_in_hand_is_brought_to_its_end(self):
        for kind in ("usage", "tool", "window", "tick", "finished"):
            assert judge(policies.UsageWindowLimit, kind, state(quotas=(quota(),))) == Allow()

    def test_stop_stops_at_once(self):
        told = state(quotas=(quota(),), limits={"window_action": "stop"})
        for kind in ("run", "iteration", "window"):
            assert isinstance(judge(policies.UsageWindowLimit, kind, told), Stop)
        assert judge(policies.UsageWindowLimit, "usage", told) == Allow()

    def test_falls_back_while_there_is_another_agent(self):
        two = state(agents=("a", "b"), quotas=(quota(),))
        assert judge(policies.UsageWindowLimit, "iteration", two) == Allow()
        assert ralph_choose_agent(two, ("a", "b")) == "b"
        both = replace(two, quotas=(quota(), quota(agent="b", resets_at=NOW + 50)))
        assert judge(policies.UsageWindowLimit, "iteration", both).until == NOW + 51
        assert ralph_choose_agent(replace(both, now=NOW + 51), ("a", "b")) == "b"

    def test_wait_waits_for_the_agent_although_there_is_another_one(self):
        two = state(agents=("a", "b"), quotas=(quota(),), limits={"window_action": "wait"})
        assert isinstance(judge(policies.UsageWindowLimit, "iteration", two), Pause)
        assert ralph_choose_agent(two, ("a", "b")) == "a"


class Captured:
    """Claude Code, played: its n-th process prints the n-th capture, and every later one the last."""

    def __init__(self, ralph, *captures, resets_in=None):
        self.ralph = ralph
        self.script = ralph.root / "claude"
        names = " ".join(f"{CLAUDE}/{name}.jsonl" for name in captures)
        moment = f"$(($(date +%s) + {resets_in}))" if resets_in is not None else "1900000000"
        self.script.write_text(
            f'#!/bin/bash\n[ "$1" = --version ] && {{ echo "2.1.197 (Claude Code)"; exit; }}\ncat > /dev/null\n'
            f"echo >> {ralph.root}/calls; n=$(wc -l < {ralph.root}/calls)\ncaptures=({names})\n"
            f'[ $n -le {len(captures)} ] || n={len(captures)}\nsed "s/1900000000/{moment}/g" "${{captures[n-1]}}"\n'
        )
        self.script.chmod(0o755)

    @property
    def calls(self):
        return (self.ralph.root / "calls").read_text().count("\n")

    def run(self, *flags, settings="", agent="claude", start=False):
        self.ralph.settings(f"agents: {{claude: {{executable: {self.script}}}}}\n{settings}")
        flags = ["run", "-a", agent, "--command", "echo LOOP_COMPLETE", "-p", "x", *flags]
        env = {"ANTHROPIC_API_KEY": "sk-ant-test"}
        return (self.ralph.start if start else self.ralph)(*flags, env=env)


class TestUsageWindowOfClaudeCode:
    """With what the genuine Claude Code wrote when the API told it of a quota."""

    def test_waits_and_goes_on_without_losing_an_iteration(self, ralph):
        claude = Captured(ralph, "quota_used_up", "text", resets_in=2)
        done = claude.run()
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert claude.calls == 2
        assert (ralph.state()["finished"], ralph.state()["failures"]) == (1, 0)
        assert "the quota of claude is used up (five_hour rejected" in done.stderr
        (attempt,) = [attempt for attempt in ralph.state()["recent"] if attempt["failure"]]
        assert attempt["failure"] == "usage_limit"

    def test_the_countdown_goes_on_after_ralph_was_killed(self, ralph):
        claude = Captured(ralph, "quota_used_up", "text", resets_in=6)
        process = claude.run(start=True)
        account = ralph.home / "audit" / "audit.jsonl"
        ralph.until(lambda: account.exists() and '"wait.started"' in account.read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
        (quota, *_) = ralph.state()["quotas"]
        done = ralph("resume", env={"ANTHROPIC_API_KEY": "sk-ant-test"})
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert claude.calls == 2, "it was not asked again before its time"
        assert time.time() >= quota["resets_at"]

    def test_falls_back_to_the_next_agent(self, ralph):
        claude = Captured(ralph, "quota_used_up")
        done = claude.run(agent="claude,command")
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert claude.calls == 1
        assert ralph.state()["agent"] == "command"
        assert "wait.started" not in ralph.types()

    def test_falls_back_at_a_share_of_the_window_after_the_iteration(self, ralph):
        claude = Captured(ralph, "quota_warning")
        done = claude.run(agent="claude,command", settings="usage_window_stop: 0.9\n")
        assert done.returncode == 0
        assert [attempt["agent"] for attempt in ralph.state()["recent"]] == ["claude", "command"]
        assert ralph.state()["recent"][0]["result"] == "finished"

    def test_stops_at_a_share_of_the_window_at_once(self, ralph):
        done = Captured(ralph, "quota_warning").run(settings="usage_window_stop: 0.9\nusage_window_action: stop\n")
        assert done.returncode == 3
        assert "five_hour allowed_warning at 93%; left alone at 90%) (by usage_window)" in done.stdout

    def test_below_the_share_nothing_happens(self, ralph):
        done = Captured(ralph, "quota_warning").run("-i", "2", settings="usage_window_stop: 0.95\n")
        assert "2 of 2 iterations are used up" in done.stdout
        assert "wait.started" not in ralph.types()


SPENT = {"claude/quota_used_up", "claude/429_late", "gemini/429"}
"""The captures in which a quota was used up; in the others nothing was, whatever words are in them."""


def events_of(path):
    if "ralph-claude" in str(path):
        from ralph_claude.stream import Stream

        stream = Stream()
        return [event for line in path.read_bytes().splitlines() for event in stream.events(line)]
    from ralph_core.contracts import Exit
    from ralph_gemini.agent import GeminiAgent

    agent = GeminiAgent(None, Context(Path("/w"), Path("/w/.agent"), {}))
    codes = {"429": 173, "401": 145, "503": 247}
    found = [event for line in path.read_bytes().splitlines() for event in agent.parse(line)]
    return found + list(agent.finish(Exit(codes.get(path.stem, 0))))


class TestCorpus:
    """No false stop, and none missed, over what the genuine CLIs wrote."""

    def test_there_is_one(self):
        assert len(CAPTURES) >= 29

    @pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parts[-4].removeprefix('ralph-')}/{path.stem}")
    def test_a_quota_is_used_up_only_where_the_api_said_so(self, path):
        quotas = []
        for event in events_of(path):
            if isinstance(event, UsageWindow):
                quotas.append(Quota("a", event.window, event.status, event.utilization, event.resets_at, NOW))
            if isinstance(event, Failed) and event.kind is FailureKind.USAGE_LIMIT:
                quotas.append(Quota("a", "", "rejected", None, None, NOW))
        verdict = judge(policies.UsageWindowLimit, "iteration", state(quotas=tuple(quotas)))
        assert isinstance(verdict, Pause) is (f"{path.parts[-4].removeprefix('ralph-')}/{path.stem}" in SPENT)

    @pytest.mark.parametrize(
        "words",
        [
            "I added @upstash/ratelimit, which answers 429 Too Many Requests.",
            "usage limit reached",
            "Claude AI usage limit reached|1900000000",
            "The docs say: print `LOOP_COMPLETE` when done.\n> LOOP_COMPLETE",
            '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1900000000}}',
            "Maximum budget reached: $50.00 of $50.00 are used up. You have hit your session limit.",
        ],
    )
    @pytest.mark.parametrize("output", ["text", "events"])
    def test_prose_has_no_effect(self, ralph, words, output):
        said = json.dumps({"type": "finished", "text": words}) if output == "events" else words
        ralph.write("said", said + "\n")
        ralph.settings(f"agents: {{command: {{output: {output}}}}}\n")
        done = ralph.run("cat > /dev/null; cat said", "-i", "2")
        assert "2 of 2 iterations are used up (by iterations)" in done.stdout
        assert ralph.state()["quotas"] == []
        assert [record["actor"] for record in ralph.records() if record["type"] == "verdict"] == ["iterations"]


BAD = """
import time
from typing import ClassVar
from ralph_core import *
class Bad(LimitPolicy):
    deadline: ClassVar[float] = 0.5
    def judge(self, moment, state):
        if moment.kind.value == {kind!r} and state.attempts >= {attempts}:
            {what}
        return Allow()
@hookimpl
def ralph_limit_policies(): return [Provider("watchdog", "", __name__ + ":Bad")]
"""
BUSY = (
    'echo $$ > "$here/busy"\n'
    """echo '{"type": "usage", "message_id": "m", "tokens": {"input": 1}}'\n"""
    """echo '{"type": "usage_window", "status": "allowed"}'\n"""
    """echo '{"type": "tool_call", "id": "t", "name": "Bash"}'\n"""
)


class TestFailClosed:
    """A policy that gives no proper answer stops the run, by its name, at every moment; a working agent is killed."""

    def broken(self, ralph, kind, what):
        meanwhile = kind in ("usage", "window", "tool", "tick")
        ralph.plugin(
            "acme", BAD.format(kind=kind, what=what, attempts=1 if meanwhile else 0), distribution="ralph-acme"
        )
        ralph.settings(EVENTS)
        ending = "trap '' TERM INT; sleep 60" if meanwhile else """echo '{"type": "finished", "text": "more"}'"""
        agent = ralph.agent(BUSY + ending)
        done = ralph.run(agent, limit=30)
        assert done.returncode == 1, (done.stdout, done.stderr)
        assert "(by acme)" in done.stdout or "acme" in done.stdout.splitlines()[1]
        assert "'watchdog'" in done.stdout
        assert agent.calls == (0 if kind in ("run", "iteration") else 1)
        assert not any(ralph.alive(pid) for pid in agent.pids)
        return done.stdout

    @pytest.mark.parametrize("kind", [kind.value for kind in EVERY])
    def test_one_that_raises(self, ralph, kind):
        assert "raised ValueError: oh" in self.broken(ralph, kind, "raise ValueError('oh')")

    @pytest.mark.parametrize("kind", ["iteration", "usage"])
    def test_one_that_hangs(self, ralph, kind):
        assert "gave no answer within 0.5 s" in self.broken(ralph, kind, "time.sleep(60)")

    @pytest.mark.parametrize("kind", ["run", "usage"])
    @pytest.mark.parametrize("answer", ["None", "True", "'allow'", "Allow"])
    def test_one_that_talks_nonsense(self, ralph, kind, answer):
        assert "which is no verdict" in self.broken(ralph, kind, f"return {answer}")


def test_the_last_attempt_is_the_one_that_is_asked_for_its_figures():
    attempt = Attempt(1, 1, "a", NOW, result="failed", spend=Spend(unmetered=1))
    refusing = state(limits={"unmetered": False}, recent=(attempt,))
    assert judge(policies.CostLimit, "finished", refusing) == Allow()
    finished = replace(refusing, recent=(replace(attempt, result="finished"),))
    assert isinstance(judge(policies.CostLimit, "finished", finished), Stop)
    assert isinstance(judge(policies.TokenLimit, "finished", finished), Stop)
    assert judge(policies.CostLimit, "iteration", finished) == Allow()
