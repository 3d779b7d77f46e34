"""The task list in a prompt, and how large a prompt is."""

import json

import pytest

from ralph_core.prompt import Checklist, checklist, digest_of, tokens_in

TASKS = "Build it.\n\n- [x] plan\n- [ ] code\n- [ ] tests\n"
GO_ON = "echo going on"


class TestChecklist:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("no list", None),
            ("- [ ] a\n* [x] b\n+ [X] c\n1. [ ] d\n2) [x] e\n", Checklist(3, 5)),
            ("  - [ ] nested\n> - [x] quoted\n", Checklist(1, 2)),
            ("- [ ] last line without its end", Checklist(0, 1)),
            ("- [ ]\n", Checklist(0, 1)),
            ("- [link](x)\n- []\n- [y] no\n[ ] no list\n- [x](a link)\n", None),
            ("```\n- [ ] code\n```\n- [ ] a\n~~~\n```\n- [ ] code\n~~~\n", Checklist(0, 1)),
        ],
    )
    def test_is_found_as_in_markdown(self, words, found):
        assert checklist(words) == found

    def test_a_tick_does_not_make_it_another_task(self):
        assert digest_of(TASKS) == digest_of(TASKS.replace("[ ] code", "[x] code"))
        assert digest_of(TASKS) != digest_of(TASKS.replace("code", "docs"))
        assert digest_of("```\n- [ ] a\n```") != digest_of("```\n- [x] a\n```")

    def test_is_shown_while_it_works_and_at_the_end(self, ralph):
        ralph.write("PROMPT.md", TASKS)
        agent = ralph.agent(
            "sed -i 's/. . code/[x] code/' PROMPT.md", "sed -i 's/. . tests/[x] tests/' PROMPT.md; echo LOOP_COMPLETE"
        )
        done = ralph.run(agent, task=None)
        assert done.returncode == 0, done.stderr
        first, second = [line for line in done.stderr.splitlines() if "iteration" in line]
        assert "2 of 3 tasks left" in first
        assert "1 of 3 tasks left" in second
        assert "tasks       3 of 3 done, 0 left" in done.stdout
        assert "tasks       3 of 3 done, 0 left" in ralph("status").stdout
        assert json.loads(ralph("status", "--json").stdout)["tasks"] == {"done": 3, "total": 3, "left": 0}

    def test_the_agent_sees_it_as_it_stands_and_is_told_where_to_tick(self, ralph):
        ralph.write("PROMPT.md", TASKS)
        agent = ralph.agent("sed -i 's/. . code/[x] code/' PROMPT.md", "echo LOOP_COMPLETE")
        ralph.run(agent, task=None)
        assert TASKS.encode() in agent.prompt(1)
        assert TASKS.replace("[ ] code", "[x] code").encode() in agent.prompt(2)
        assert b"1 of 3 done, 2 left: tick in " + str(ralph.workspace / "PROMPT.md").encode() in agent.prompt(1)

    @pytest.mark.parametrize(
        "step", ["echo Do something else > PROMPT.md", "rm PROMPT.md", "printf '\\377' > PROMPT.md"]
    )
    def test_nothing_else_that_the_agent_does_to_its_prompt_counts(self, ralph, step):
        ralph.write("PROMPT.md", TASKS)
        agent = ralph.agent(step, "echo LOOP_COMPLETE")
        assert ralph.run(agent, task=None).returncode == 0
        assert TASKS.encode() in agent.prompt(2)

    def test_a_run_that_was_killed_goes_on_although_a_box_was_ticked(self, ralph):
        ralph.write("PROMPT.md", TASKS)
        agent = ralph.agent("sed -i 's/. . code/[x] code/' PROMPT.md; touch begun; sleep 60", "echo LOOP_COMPLETE")
        process = ralph.begin(agent, task=None)
        ralph.until((ralph.workspace / "begun").exists)
        process.kill()
        process.wait()
        done = ralph.run(agent, task=None)
        assert done.returncode == 0
        assert len(ralph.folders) == 1
        assert "the prompt has changed" not in done.stdout

    def test_words_from_the_command_line_have_boxes_that_nobody_can_tick(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE")
        ralph.run(agent, task=TASKS)
        assert b"tick in" not in agent.prompt()
        assert "1 of 3 done" in ralph("status").stdout

    def test_without_a_list_nothing_is_said(self, ralph):
        done = ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        assert "tasks" not in done.stdout + done.stderr + ralph("status").stdout
        assert json.loads(ralph("status", "--json").stdout)["tasks"] is None


class TestSize:
    @pytest.mark.parametrize(
        ("words", "tokens"), [("", 0), ("word", 1), ("words", 2), ("修复测试", 4), ("fix 测试", 3)]
    )
    def test_is_estimated_by_characters(self, words, tokens):
        assert tokens_in(words) == tokens

    def test_a_large_prompt_is_said_before_anything_is_paid_for(self, ralph):
        ralph.write("PROMPT.md", "word " * 20_000)
        agent = ralph.agent("echo LOOP_COMPLETE")
        preview = ralph.run(agent, "--dry-run", task=None).stdout
        assert "about 25000 tokens)" in preview
        assert "the prompt is large: about 25000 tokens (a quarter of its ASCII characters" in preview
        done = ralph.run(agent, task=None)
        assert "note: the prompt is large" in done.stderr
        assert "every iteration pays for" in done.stdout

    def test_a_small_one_is_not(self, ralph):
        done = ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        assert "is large" not in done.stdout + done.stderr
