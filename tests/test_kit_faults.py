"""For each rule of each contract of the kit: what has exactly that one fault fails that test, with what to mend, and no other."""

import ast
import fcntl
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import pytest

from ralph_core import (
    CONTRACT_VERSION,
    Agent,
    AuditSink,
    CheckpointStore,
    CommandAgent,
    LimitPolicy,
    __version__,
)
from ralph_core.cli.plugins_new import SKELETON, _words, _write
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.policies import LimitPolicyContract
from ralph_core.testing.sinks import AuditSinkContract
from ralph_core.testing.stores import CheckpointStoreContract

FAULTS = Path(__file__).parent / "faults"

AGENTS = {
    "probe_raises": ("probe_is_quick_and_does_not_raise", "probe raised OSError('no disk')"),
    "probe_answers_nothing": ("probe_is_quick_and_does_not_raise", "probe answered None"),
    "probe_takes_long": ("probe_is_quick_and_does_not_raise", "probe took "),
    "probe_finds_everything": ("probe_says_what_is_missing", "find_program(name, self.context.env)"),
    "knows_skills_that_are_not_there": ("skills_are_files_that_are_there", "where there is no skill, skills() answers"),
    "only_success": ("scenarios_show_success_and_failure", "only one of success and failure"),
    "one_name_twice": ("scenarios_show_success_and_failure", "two scenarios have one name"),
    "two_final_events": ("ends_with_exactly_one_final_event", "Finished, Finished"),
    "something_after_the_end": ("ends_with_exactly_one_final_event", "Finished, Text"),
    "no_final_event": ("ends_with_exactly_one_final_event", "yield one Finished or Failed in each attempt"),
    "raises": ("ends_with_exactly_one_final_event", "run raised ConnectionError: lost"),
    "wrong_kind": ("comes_to_what_is_expected", "a failure of the kind auth was expected"),
    "says_nothing": ("comes_to_what_is_expected", "the failure says nothing"),
    "wrong_types": ("events_can_be_written_down", "Text(text=7)"),
    "negative_tokens": ("events_can_be_written_down", "a number of tokens is negative"),
    "result_without_a_call": ("tool_results_belong_to_calls", "a result for 't7'"),
    "call_twice": ("tool_results_belong_to_calls", "'t1' (shell) is reported twice"),
    "shrinking_usage": ("usage_of_a_message_never_shrinks", "the usage of message 'm1' went down"),
    "remembers": ("a_second_attempt_starts_afresh", "forget in `begin`"),
    "begins_once": ("a_second_attempt_starts_afresh", "forget in `begin`"),
    "hates_garbage": ("survives_garbage", "lines that mean nothing"),
    "hates_half_a_line": ("survives_half_a_line_at_the_end", "half of the last line"),
    "hates_bytes": ("survives_invalid_utf8", "bytes that are no UTF-8"),
    "hates_long_lines": ("survives_a_line_of_10_megabytes", "chunk exceed the limit"),
    "trims_the_prompt": ("prompt_is_handed_over_to_the_byte", "hand over request.prompt as it is"),
    "cuts_the_prompt": ("prompt_is_handed_over_to_the_byte", "nothing may be cut off"),
    "leaks_the_environment": ("environment_is_what_it_was_given", "leaks into the agent's"),
    "drops_the_environment": ("environment_is_what_it_was_given", "a variable of request.env does not arrive"),
    "works_elsewhere": ("works_in_the_workspace", "start it in request.workspace"),
    "raises_when_stopped": ("can_be_stopped_in_the_middle", "raised RuntimeError: killed"),
    "leaves_a_process": ("can_be_stopped_in_the_middle", "processes were left"),
    "shows_too_much": ("capabilities_are_those_that_are_observed", "drift: done shows session, which is not declared"),
    "promises_too_much": ("capabilities_are_those_that_are_observed", "drift: cost, quota is declared"),
    "is_set_up_for_more": (
        "capabilities_are_those_that_are_observed",
        "drift: asks is declared, and no scenario shows it",
    ),
    "has_no_model": ("capabilities_are_those_that_are_observed", "drift: model is declared"),
    "takes_servers_in_secret": ("capabilities_are_those_that_are_observed", "drift: done shows mcp"),
}
STORES = {
    "forgets_a_part": ("loads_what_was_saved", "these fields came back otherwise: recent"),
    "notes_on_nothing": ("loads_what_was_saved", "leave the note empty"),
    "keeps_the_old_one": ("the_last_state_wins", "let each save take the place of the one before"),
    "durable_or_not_at_all": ("saves_that_need_not_be_durable", "durable=False spares the wait for the disk"),
    "oldest_first": ("lists_the_newest_run_first", "sort the ids, the largest first"),
    "latest_is_the_first": ("knows_the_latest_run", "latest() answers"),
    "knows_all_runs": ("refuses_a_run_that_it_does_not_know", "raise StoreError or UnknownName"),
    "takes_any_id": ("ids_lead_nowhere_else", "a run '../evil' is claimed"),
    "writes_outside": ("ids_lead_nowhere_else", "something was written outside"),
    "lets_stale_writers_pass": ("a_stale_writer_is_fenced_off", "compare tokens in each save"),
    "has_another_word_for_it": ("a_stale_writer_is_fenced_off", "raise LeaseLost"),
    "looks_at_the_lease_too_late": ("a_stale_writer_is_fenced_off", "compare tokens before anything is written"),
    "first_come_first_served": ("the_new_writer_can_save", "let the highest token write"),
    "one_lease_for_all": ("a_lease_is_for_one_run", "the state of another was saved"),
    "remembers": ("two_instances_see_the_same", "keep no copy in memory"),
    "forgets_other_processes": ("two_processes_see_the_same", "keep the tokens where all see them"),
    "writes_in_two_steps": ("survives_kill_9", "at no instant may it be half there"),
    "prunes_live_runs": ("prune_keeps_live_runs", "has forgotten a run that has not ended"),
    "miscounts": ("prune_keeps_live_runs", "return how many were forgotten"),
    "keeps_no_head": ("heads_of_the_account_are_kept", "call super().anchor(state, lease)"),
    "forgets_the_head": ("heads_of_the_account_are_kept", "answer an Anchor for each head that was kept"),
    "packs_nothing": ("a_backup_can_be_put_back", "write in `pack` what is kept outside of the state directory"),
    "packs_no_files": ("a_backup_can_be_put_back", "write the snapshots in `pack`"),
    "unpacks_once": ("unpack_can_be_repeated", "leave what is here already and is the same"),
    "unpacks_over_all": ("unpack_overwrites_nothing", "compare before anything is written"),
    "has_another_word_for_a_contradiction": ("unpack_overwrites_nothing", "raise UserError, with what is in the way"),
    "promises_snapshots": ("snapshots_are_declared", "drift: the capability snapshots is declared"),
    "hides_snapshots": ("snapshots_are_declared", "drift: the capability snapshots is not declared"),
    "gives_another_name": ("snapshots_have_a_history", "each with a ref of its own"),
    "history_backwards": ("snapshots_have_a_history", "oldest first"),
    "restores_for_good": ("files_are_put_back", "restore took no snapshot of what was there"),
    "restores_nothing_elsewhere": ("files_are_put_elsewhere", "write them all"),
    "sees_no_change": ("changes_are_told", "answer a unified diff"),
    "names_other_files": ("changes_are_told", "changed_files() answers ['all']"),
    "looks_for_good": ("a_look_is_for_the_snapshot_that_follows", "use what a look found for the next snapshot alone"),
    "fingerprint_of_the_time": ("fingerprint_names_the_files", "derive it from the content of the files alone"),
}
SINKS = {
    "backwards": ("keeps_records_in_order", "in another order"),
    "cleans_up": ("keeps_hard_content", "these fields are otherwise: message"),
    "begins_anew": ("goes_on_after_reopening", "three records, and three by the next instance"),
    "closes_what_is_not_open": ("can_be_closed_without_a_write", "let flush and close do nothing before"),
    "flushes_what_is_not_there": ("can_be_closed_without_a_write", "let flush and close do nothing before"),
    "counts_on_records": ("an_empty_batch_is_nothing", "an empty batch raised IndexError"),
    "keeps_it_to_itself": ("what_was_flushed_outlives_kill_9", "records were flushed when kill -9 came, and 0 are there"),
    "mends_what_is_whole": ("recovery_says_what_was_done", "nothing was there to be mended"),
    "says_it_dropped_something": ("what_was_dropped_is_said", "answer None for a run of which all records are there"),
    "can_be_asked_in_secret": ("query_is_what_is_declared", "drift: the capability query is not declared"),
    "heeds_no_limit": ("queries_are_answered", "the query {'limit': 3}"),
    "writes_lines_of_its_own": ("lines_are_kept_to_the_byte", "keep AuditRecord.line as it is"),
    "hides_its_lines": ("lines_are_kept_to_the_byte", "drift: the capability verify is not declared"),
    "promises_to_prune": ("prune_forgets_old_runs", "drift: the capability prune is declared"),
    "only_says_it_prunes": ("prune_forgets_old_runs", "pruned: the run that is not old"),
}  # fmt: skip
POLICIES = {
    "raises": ("answers_every_moment_in_time", "judge raised TypeError"),
    "says_nothing": ("answers_every_moment_in_time", "judge answered None"),
    "takes_long": ("answers_every_moment_in_time", "and has 1 s"),
    "has_no_reason": ("gives_its_reasons", "Stop without a reason"),
    "waits_for_the_past": ("gives_its_reasons", "which is not after state.now"),
    "counts_questions": ("says_the_same_when_asked_again", "no counting of calls, no chance"),
    "looks_at_the_clock": ("goes_by_the_time_of_the_state", "take the time from state.now"),
    "has_a_clock_of_its_own": ("goes_by_the_time_of_the_state", "take the time from state.now"),
    "looks_at_the_calendar": ("goes_by_the_time_of_the_state", "take the time from state.now"),
    "changes_the_state": ("changes_nothing", "judge has changed the state"),
    "writes_files": ("changes_nothing", "judge has changed a file"),
    "judges_tools_in_secret": ("tools_are_what_is_declared", "drift: the capability tools is not declared"),
    "promises_to_judge_tools": ("tools_are_what_is_declared", "drift: the capability tools is declared"),
}
DECLARES = "from ralph_core import *\n@hookimpl\ndef ralph_agents(): return [{}]\n"
GOOD = DECLARES.format("Provider('{name}', 'one', 'ralph_core.builtin.command:ShellAgent')")
MODEL = (
    "from pydantic import BaseModel, ConfigDict\nclass Settings(BaseModel):\n    {}\n    colour: str = 'red'\n    {}\n"
)
FROZEN = "model_config = ConfigDict(frozen=True, extra='forbid')"
WITH_MODEL = DECLARES.format(
    "Provider('{name}', 'one', 'ralph_core.builtin.command:ShellAgent', '{name}_models:Settings')"
)
PINNED = "ralph-core>={},<{}.{}".format(
    CONTRACT_VERSION, *(CONTRACT_VERSION.split(".")[0], int(CONTRACT_VERSION.split(".")[1]) + 1)
)
README = "A plugin that does this and that, and how it is set up, in ten words or more."
PLUGINS = {
    "missing": ({"entry": None}, "is_found", "0 installed packages have an entry point 'missing'"),
    "twice": ({"twice": True}, "is_found", "2 installed packages"),
    "raises": ({"code": "raise RuntimeError('no such luck')"}, "can_be_loaded", "RuntimeError: no such luck"),
    "prints": ({"code": GOOD + "print('hello')"}, "import_prints_nothing", "prints 'hello\\n'"),
    "heavy": ({"code": GOOD + "import pydantic"}, "import_budget", "imports pydantic"),
    "unknown-hook": ({"code": GOOD + "@hookimpl\ndef ralph_agent(): return []"}, "hooks_are_known", "did you mean 'ralph_agents'?"),
    "no-hook": ({"code": ""}, "hooks_are_known", "implements no hook"),
    "answers-none": ({"code": DECLARES.format("").replace("return []", "return None")}, "answers_are_providers", "ralph_agents answered None"),
    "hook-raises": ({"code": DECLARES.format("1 / 0")}, "answers_are_providers", "ralph_agents raised ZeroDivisionError"),
    "bad-name": ({"code": GOOD.replace("{name}", "My Agent")}, "names_are_legal_and_free", "'My Agent': that is no name"),
    "taken-name": ({"code": GOOD.replace("{name}", "command")}, "names_are_legal_and_free", "'command' is taken by plugin 'builtin'"),
    "no-summary": ({"code": GOOD.replace("'one'", "''")}, "providers_say_what_they_are", "has no summary"),
    "strange-word": ({"code": GOOD.replace("Agent')", "Agent', capabilities=frozenset({{'snapshots'}}))")}, "providers_say_what_they_are", "has the capabilities snapshots"),
    "no-factory": ({"code": GOOD.replace("ShellAgent", "Nothing")}, "factories_make_what_they_should", "has no attribute 'Nothing'"),
    "other-factory": ({"code": GOOD.replace("command:ShellAgent", "local:LocalStore")}, "factories_make_what_they_should", "is no Agent"),
    "abstract": ({"code": GOOD.replace("ralph_core.builtin.command:ShellAgent", "ralph_core:Agent")}, "factories_make_what_they_should", "does not implement probe, run"),
    "no-model": ({"code": WITH_MODEL}, "settings_models_are_right", "No module named"),
    "loose-model": ({"code": WITH_MODEL, "models": MODEL.format("pass", "'''Of it.'''")}, "settings_models_are_right", "takes settings that it does not know"),
    "silent-model": ({"code": WITH_MODEL, "models": MODEL.format(FROZEN, "pass")}, "settings_models_are_right", "does not say what colour means"),
    "old": ({"code": GOOD + "RALPH_CONTRACT = '0.0'"}, "is_made_for_this_contract", "it was made for contract 0.0"),
    "no-pin": ({"requires": "ralph-core"}, "metadata_pin_the_core", f'dependencies = ["{PINNED}"]'),
    "other-pin": ({"requires": "ralph-core>=0.0,<9"}, "metadata_pin_the_core", f'dependencies = ["{PINNED}"]'),
    "no-readme": ({"readme": ""}, "metadata_have_a_readme", 'write `readme = "README.md"`'),
    "good": ({}, "", ""),
}  # fmt: skip

KINDS = {"agent": AGENTS, "store": STORES, "sink": SINKS, "policy": POLICIES}
CONTRACTS = {
    "agent": AgentContract,
    "store": CheckpointStoreContract,
    "sink": AuditSinkContract,
    "policy": LimitPolicyContract,
    "plugin": PluginContract,
}
BASES = {
    "agent": (Agent, CommandAgent),
    "store": (CheckpointStore,),
    "sink": (AuditSink,),
    "policy": (LimitPolicy,),
}
CASES = [(kind, fault, *case) for kind, faults in KINDS.items() for fault, case in faults.items()]
CASES += [("plugin", name, *case[1:]) for name, case in PLUGINS.items() if case[1]]
ELSEWHERE = {"policy": {"is_not_concerned"}}
"""Classes of the fault modules that other tests look at."""


def run(folder, module):
    """The tests of a module in a process of its own: class, without `Test_`, to the messages of the tests that failed."""
    report = folder / "report.xml"
    command = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={FAULTS}", f"--basetemp={folder / 'tmp'}"]
    command += ["-o", "python_files=*.py", f"--junitxml={report}", "-p", "xdist.plugin", "-n", "2", str(module)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "RALPH", "OTEL"))}
    env |= {"PYTHONPATH": str(folder / "site"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *command], env=env, capture_output=True, text=True, timeout=500
    )
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        fault = case.get("classname").rpartition(".")[2].removeprefix("Test_")
        failures = found.setdefault(fault, {})
        for tag in ("failure", "error"):
            for each in case.findall(tag):
                failures.setdefault(case.get("name").partition("[")[0].removeprefix("test_"), each.text)
    return found


@pytest.fixture
def outcomes(tmp_path_factory):
    """Of a kind, what came of each fault; run once, also for several workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def look(kind):
        with (shared / f"faults-{kind}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            report = shared / f"faults-{kind}.json"
            if not report.exists():
                report.write_text(json.dumps(played(kind)))
            return json.loads(report.read_text())

    return look


def played(kind):
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site").mkdir()
        if kind == "plugin":
            return {name.replace("_", "-"): failed for name, failed in run(folder, plugins(folder)).items()}
        words = _words("acme", kind)
        for template in (SKELETON / kind / "src").rglob("*.tmpl"):
            _write(template, folder, words)
        (folder / "src").rename(folder / "site2")
        (folder / "site2" / "ralph_acme").rename(folder / "site" / "ralph_acme")
        return run(folder, FAULTS / f"{kind}_faults.py")


def plugins(folder):
    """Install all faulty plugins, and write a class on the kit for each."""
    lines = ["from ralph_core.testing.packages import PluginContract"]
    for name, (how, *_) in PLUGINS.items():
        plain = name.replace("-", "_")
        code = how.get("code", GOOD).replace("{name}", plain).replace("{{", "{").replace("}}", "}")
        (folder / "site" / f"{plain}_module.py").write_text(code)
        if "models" in how:
            (folder / "site" / f"{plain}_models.py").write_text(how["models"])
        for distribution in ("acme", "other") if how.get("twice") else ("acme",):
            install(folder / "site", f"{distribution}_{plain}", name, f"{plain}_module", how)
        lines.append(f"class Test_{plain}(PluginContract):\n    plugin = {name!r}")
    module = folder / "plugin_faults.py"
    module.write_text("\n".join(lines))
    return module


def install(site, distribution, name, module, how):
    info = site / f"{distribution}-1.0.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: one\n"
    (info / "METADATA").write_text(
        f"{head}Requires-Dist: {how.get('requires', PINNED)}\n\n{how.get('readme', README)}\n"
    )
    (info / "entry_points.txt").write_text(f"[ralph.plugins]\n{name} = {module}\n" if how.get("entry", True) else "")


@pytest.mark.parametrize(("kind", "fault", "rule", "says"), CASES, ids=[f"{kind}-{fault}" for kind, fault, *_ in CASES])
def test_fails_its_rule_and_no_other(outcomes, kind, fault, rule, says):
    failed = outcomes(kind)[fault]
    assert set(failed) == {rule}, failed
    assert says in failed[rule]
    assert "to mend: " in failed[rule]


@pytest.mark.parametrize("kind", CONTRACTS)
def test_what_has_no_fault_fails_nothing(outcomes, kind):
    names = {"store": ("none", "none_of_files", "none_away"), "plugin": ("good",)}.get(kind, ("none",))
    assert [outcomes(kind)[name] for name in names] == [{}] * len(names)


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_rule_has_a_fault_that_breaks_it(kind):
    rules = {name.removeprefix("test_") for name in vars(CONTRACTS[kind]) if name.startswith("test_")}
    assert {rule for each, _, rule, _ in CASES if each == kind} == rules


@pytest.mark.parametrize(("kind", "base"), [(kind, base) for kind, bases in BASES.items() for base in bases])
def test_every_method_of_a_base_class_has_a_rule(kind, base):
    """Each public method is done wrong by some faulty class, which fails one rule by it."""
    wrong = {
        method.name
        for each in ast.walk(ast.parse((FAULTS / f"{kind}_faults.py").read_text()))
        if isinstance(each, ast.ClassDef)
        for method in each.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    methods = {name for name, value in vars(base).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert methods <= wrong


@pytest.mark.parametrize("kind", KINDS)
def test_every_faulty_class_is_looked_at(outcomes, kind):
    known = {*KINDS[kind], "none", "none_of_files", "none_away", *ELSEWHERE.get(kind, ())}
    assert set(outcomes(kind)) <= known
    assert set(KINDS[kind]) <= set(outcomes(kind))


def test_a_policy_that_is_not_concerned_has_to_be_set_up(outcomes):
    failed = outcomes("policy")["is_not_concerned"]
    assert all(
        "override the fixture `settings`, so that it has something to judge" in words for words in failed.values()
    )
    assert failed


def test_the_pin_is_that_of_this_version():
    assert __version__.startswith(CONTRACT_VERSION)
