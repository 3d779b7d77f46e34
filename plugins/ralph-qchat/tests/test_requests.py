"""The adapter and the stand-in: what it answers, how it fails, and what the settings do to it."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import threading
import time

import pytest

from ralph_core.contracts import Context, Request
from ralph_core.events import Failed, FailureKind, Finished, Started, Text, Usage
from ralph_core.processes import job
from ralph_core.testing.attempts import attempt
from ralph_qchat.agent import KiroAgent, QAgent, QChatAgent
from ralph_qchat.plugin import ralph_agents
from ralph_qchat.settings import ChatSettings
from ralph_qchat.slots import SLOTS

DONE = Finished("All done.\nLOOP_COMPLETE")


class TestAnswer:
    @pytest.mark.parametrize(
        ("name", "kind"), [("q", QAgent), ("q", QChatAgent), ("kiro-cli", QChatAgent), ("kiro-cli", KiroAgent)]
    )
    def test_is_plain_text(self, desk, name, kind):
        (desk.tmp / "bin/q").unlink()
        desk.install(name)
        assert desk.run(kind=kind) == [Text("All done."), Text("LOOP_COMPLETE"), DONE]

    def test_is_what_is_said_after_the_last_tool(self, desk):
        assert desk.run("tool")[-1] == DONE

    def test_needs_no_input_but_the_prompt_which_may_be_long(self, desk):
        prompt = "".join(f"{number:07} 文件 🚀\r\n" for number in range(90_000))
        told = f"{len(prompt.strip())} characters."  # it strips what it reads
        assert desk.run("length", prompt=prompt)[-1].text == f"{told}\nLOOP_COMPLETE"

    def test_of_a_prompt_that_is_echoed_is_the_rest(self, desk):
        prompt = "First do this.\n\nThen print LOOP_COMPLETE.\nLOOP_COMPLETE"
        events = desk.run("echo", prompt=prompt)
        assert events == [Text("The answer."), Text("LOOP_COMPLETE"), Finished("The answer.\nLOOP_COMPLETE")]

    def test_is_missing_if_there_is_but_the_echo(self, desk):
        (failed,) = desk.run("echo-only", prompt="Print this:\nLOOP_COMPLETE")
        assert failed.kind is FailureKind.INVALID_OUTPUT

    def test_comes_whole_however_much_is_written_to_both_streams(self, desk):
        events = desk.run("chatter")
        assert events[-1] == Finished("Done.\nLOOP_COMPLETE")
        assert 100 <= len(events) < 3000, "a flood of what tools print is not reported line by line"

    def test_survives_garbage_before_it(self, desk):
        assert desk.run("garbage")[-1] == Finished("Fine [/x] 漢字.\nLOOP_COMPLETE")

    def test_may_be_a_huge_line(self, desk):
        assert len(desk.run("huge-line")[-1].text) == 3_000_014

    def test_ends_the_wait_though_a_child_keeps_the_output_open(self, desk):
        assert desk.run("lingering")[-1] == Finished("Done.\nLOOP_COMPLETE")

    def test_has_no_figures_and_the_providers_say_so(self, desk):
        events = desk.run("tool", model="some-model")
        assert not [event for event in events if isinstance(event, (Started, Usage))]
        assert (events[-1].usage, events[-1].cost) == (None, None)
        assert "some-model" in (desk.tmp / "output.err").read_text()
        assert {provider.capabilities for provider in ralph_agents()} == {frozenset({"model"})}


class TestFailure:
    @pytest.mark.parametrize(
        ("mode", "kind"),
        [
            ("throttle", FailureKind.OVERLOADED),
            ("trouble", FailureKind.OVERLOADED),
            ("unreachable", FailureKind.NETWORK),
            ("monthly", FailureKind.USAGE_LIMIT),
            ("bad-key", FailureKind.AUTH),
            ("no-login", FailureKind.AUTH),
            ("silent", FailureKind.INVALID_OUTPUT),
            ("mcp", FailureKind.AGENT),
        ],
    )
    def test_kind(self, desk, mode, kind):
        (failed,) = desk.run(mode)
        assert failed.kind is kind
        assert failed.message
        assert "\x1b" not in failed.message

    def test_kiro_that_waits_for_a_login_fails_at_once(self, desk):
        desk.install("kiro-cli")
        began = time.monotonic()
        events = desk.run("no-login", kind=KiroAgent, timeout=60)
        assert events[-1].kind is FailureKind.AUTH
        assert time.monotonic() - began < 30

    def test_crash(self, desk):
        failed = desk.run("crash")[-1]
        assert failed.kind is FailureKind.AGENT
        assert signal.SIGSEGV.name in failed.message

    def test_not_installed(self, desk):
        (desk.tmp / "bin/q").unlink()
        (failed,) = desk.run()
        assert failed.kind is FailureKind.SPAWN

    def test_version_that_does_not_know_the_options(self, desk):
        (failed,) = desk.run(extra_args=("--of-tomorrow",))
        assert failed.kind is FailureKind.AGENT
        assert "--of-tomorrow" in failed.message

    def test_unknown_agent(self, desk):
        desk.install("kiro-cli")
        (failed,) = desk.run(kind=KiroAgent, extra_args=("--agent", "nobody"))
        assert "exit code 4" in failed.message

    def test_tool_that_is_not_trusted(self, desk):
        failed = desk.run("tool", trust_all_tools=False)[-1]
        assert failed.kind is FailureKind.AGENT
        assert "approval" in failed.message
        assert desk.run("tool", trust_tools=("fs_read",))[-1].kind is FailureKind.AGENT
        assert desk.run("tool", trust_tools=("fs_read", "execute_bash"))[-1] == DONE

    @pytest.mark.parametrize("mode", ["hang", "deaf"])
    def test_that_never_ends_is_ended_after_its_time(self, desk, mode):
        began = time.monotonic()
        failed = desk.run(mode, env={"QCHAT_TIMEOUT": "1.5"})[-1]
        assert failed == Failed(FailureKind.TIMEOUT, "it took more than 1.5 s (QCHAT_TIMEOUT)")
        assert 1.5 <= time.monotonic() - began < 30

    def test_flood_is_ended_at_its_size(self, desk):
        failed = desk.run("flood", env={"QCHAT_MAX_OUTPUT_SIZE": "100000"})[-1]
        assert failed.kind is FailureKind.INVALID_OUTPUT
        assert "more than 100000 bytes" in failed.message

    def test_memory_is_limited(self, desk):
        assert isinstance(desk.run("memory")[-1], Finished)
        failed = desk.run("memory", env={"QCHAT_MAX_MEMORY_MB": "300"})[-1]
        assert failed.kind is FailureKind.AGENT
        assert "MemoryError" in failed.message


class TestPromptCheck:
    @pytest.mark.parametrize(
        ("prompt", "settings", "says"),
        [
            ("x" * 11, {"max_prompt_length": 10}, "11 characters, and max_prompt_length is 10"),
            ("a\0b", {}, "NUL byte, at character 1"),
            ("please rm -rf / now", {"blocked_patterns": ("curl |", "rm -rf /")}, "'rm -rf /'"),
        ],
    )
    def test_refuses_before_anything_starts(self, desk, prompt, settings, says):
        kept = desk.tmp / "kept"
        kept.mkdir()
        (failed,) = desk.run(prompt=prompt, env={"Q_STANDIN_KEEP": str(kept)}, **settings)
        assert failed.kind is FailureKind.SPAWN
        assert says in failed.message
        assert list(kept.iterdir()) == []

    def test_lets_the_others_pass(self, desk):
        assert desk.run(prompt="x" * 10, max_prompt_length=10, blocked_patterns=("y",))[-1] == DONE


class TestProcess:
    def asked(self, desk, **more):
        """Arguments, prompt and environment, as the stand-in saw them."""
        kept = desk.tmp / "kept"
        kept.mkdir()
        assert desk.run(env={"Q_STANDIN_KEEP": str(kept), **more.pop("env", {})}, **more)[-1] == DONE
        return ast.literal_eval(next(kept.iterdir()).read_text())

    def test_arguments(self, desk):
        arguments, prompt, _ = self.asked(desk, model="m", extra_args=("--agent", "a"), prompt="größer\n")
        assert arguments == [
            *("chat", "--no-interactive", "--wrap", "never", "--trust-all-tools"),
            *("--model", "m", "--agent", "a"),
        ]
        assert prompt == "größer"

    @pytest.mark.parametrize(
        ("env", "key"), [({"Q_API_KEY": "q"}, "q"), ({"Q_API_KEY": "q", "KIRO_API_KEY": "k"}, "k"), ({}, None)]
    )
    def test_key(self, desk, env, key):
        assert self.asked(desk, env=env)[2].get("KIRO_API_KEY") == key

    def test_variables_of_the_section(self, desk):
        agent = QChatAgent(ChatSettings(env={"A": "2"}), Context(desk.workspace, desk.home, desk.env))
        request = Request("run", 1, 1, "p", desk.workspace, {"A": "1", "B": "1"}, host=None)
        assert agent.command(request).env == {"A": "2", "B": "1"}


class TestRetries:
    def finals(self, desk, mode, times, **env):
        agent = desk.agent(env={"Q_STANDIN": mode, **env})
        return [desk.try_(agent, number=number).final for number in range(1, times + 1)]

    def test_wait_longer_each_time_and_end_as_a_failure(self, desk):
        found = self.finals(desk, "throttle", 5, QCHAT_MAX_RETRIES="2", QCHAT_RETRY_DELAY="0.5")
        overloaded, agent = FailureKind.OVERLOADED, FailureKind.AGENT
        assert [each.kind for each in found] == [overloaded, overloaded, agent, overloaded, overloaded]
        assert [each.retry_after for each in found] == [0.5, 1.0, None, 0.5, 1.0]
        assert "(tried 3 times)" in found[2].message

    def test_begin_anew_after_a_success(self, desk):
        agent = desk.agent(env={"Q_STANDIN": "throttle-once", "QCHAT_MAX_RETRIES": "1"})
        delays = []
        for number in (1, 2, 3):
            final = desk.try_(agent, number=number).final
            delays.append(getattr(final, "retry_after", final.text if isinstance(final, Finished) else ""))
            if number == 2:
                (desk.workspace / "asked").unlink()
        assert delays == [1.0, DONE.text, 1.0]

    def test_are_three_after_one_second_by_default(self, desk):
        assert [each.retry_after for each in self.finals(desk, "unreachable", 4)] == [1.0, 2.0, 4.0, None]


class TestConcurrency:
    def test_is_limited_over_all_runs_of_the_process(self, desk, tmp_path):
        """Six runs, each in a thread and a loop of its own, two at once."""
        seen, finals = [], []

        def one(number):
            agent = desk.agent(env={"Q_STANDIN": "slow", "Q_STANDIN_SECONDS": "1", "QCHAT_MAX_CONCURRENT": "2"})
            done = asyncio.run(attempt(agent, "p", desk.workspace, agent.context.env, tmp_path / f"output{number}"))
            finals.append(done.final)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            seen.append(SLOTS.taken)
            time.sleep(0.005)
        for thread in threads:
            thread.join()
        assert [type(final) for final in finals] == [Finished] * 6
        assert max(seen) == 2
        assert SLOTS.taken == 0

    def test_slot_is_given_back_whatever_happens(self, desk):
        for mode, settings in (("hang", {"timeout": 0.5}), ("crash", {}), ("ok", {"max_prompt_length": 1})):
            desk.run(mode, **settings)
            assert SLOTS.taken == 0


class TestReading:
    def test_buffer_size_and_poll_interval_are_those_of_the_settings(self, desk, monkeypatch):
        """What is read of the output file, and how long is waited, as the operating system and the loop see it."""
        reads, pauses = [], []
        pread, within = os.pread, job.within

        def spy(number, size, offset):
            reads.append(size)
            return pread(number, size, offset)

        async def wait(event, seconds):
            pauses.append(seconds)
            return await within(event, seconds)

        monkeypatch.setattr(os, "pread", spy)
        monkeypatch.setattr(job, "within", wait)
        env = {"Q_STANDIN_SECONDS": "2.5", "QCHAT_BUFFER_SIZE": "7", "QCHAT_POLL_INTERVAL": "0.4"}
        assert isinstance(desk.run("slow", env=env, timeout=60)[-1], Finished)
        assert reads.count(7) >= 3
        assert 0.4 in pauses
