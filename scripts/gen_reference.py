"""The reference for authors of plugins, from the code: hooks, base classes, values, the kit. `gen_docs.py` writes its pages."""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import ralph_core
from ralph_core import FailureKind
from ralph_core.hookspecs import RalphSpec
from ralph_core.loop import COOL_DOWN, FOR_EVER, LASTING
from ralph_core.plugins.registry import KINDS

HOOKS_HEAD = """\
# Hooks

A plugin is a module (or a class, or an instance) that an entry point of the group `ralph.plugins` names; the entry point's
name is the plugin's name. Its functions are marked with `hookimpl`, and may leave out arguments that they do not need:

```python
from ralph_core import Section, hookimpl


@hookimpl
def ralph_prompt_sections(task):
    return [Section("House rules", "Run the tests before you end.")]
```

```toml
[project.entry-points."ralph.plugins"]
house = "my_package.house"
```

Implementations are called one at a time, in the order of the plugins' names (`tryfirst` before, `trylast` after all
others), each in a span of its own. Hook wrappers are refused. What providers are made of is [the contract](contract.md), what
is handed to and fro are [the values](values.md).
"""
CONTRACT_HEAD = """\
# The contract

What a plugin implements, and what it is given and answers on the way: everything here is imported from `ralph_core`. Named
things (agents, checkpoint stores, audit sinks, limit policies) are classes, declared as providers; for what has no name there
are [hooks](hooks.md). [Values](values.md) has events, verdicts, the state of a run and the errors; [the kit](kit.md) shows that
all of it holds. This page is generated from the code.
"""
VALUES_HEAD = """\
# Values

What crosses the contract: everything here is imported from `ralph_core`, and all values are frozen. Fields may be added, never
renamed. What implements the contract is [here](contract.md). This page is generated from the code.
"""
KIT_HEAD = """\
# The conformance kit

`ralph_core.testing` is in the wheel; it needs pytest (`pip install 'ralph-core[testing]'`), no checkout, no network, no
credentials. Each contract is a class to be subclassed, and each of its tests is a rule; [for authors](../authors.md#the-kit)
says how it is used. This page is generated from the code.
"""


class Group(NamedTuple):
    """A section of a page: public names, in their order."""

    title: str
    names: str


CONTRACT = (
    Group("Being a plugin", "CONTRACT_VERSION hookimpl RalphSpec __version__"),
    Group("Providers", "Provider Capability Context"),
    Group(
        "Agents",
        "Agent CommandAgent Probe find_program ask_program Request AskChannel McpServers ProcessHost Command Process Exit SpawnError tail_of",
    ),
    Group("Checkpoint stores", "CheckpointStore Lease Saved Snapshot Anchor dump_state parse_state"),
    Group("Audit sinks", "AuditSink AuditRecord Severity AuditFilter record_of"),
    Group("Limit policies", "LimitPolicy"),
    Group("For hooks", "Section Failure"),
)
VALUES = (
    Group("Events", "Event Started Text ToolCall ToolResult Usage Tokens UsageWindow Failed Finished"),
    Group("Failures", "FailureKind"),
    Group("Moments and verdicts", "Moment MomentKind Verdict Allow Ask Deny Pause Stop"),
    Group("The state of a run", "RunState Task Limits Spend Attempt Quota Progress GateResult"),
    Group("Outcomes", "Outcome OutcomeKind ExitCode"),
    Group(
        "Errors",
        "RalphError UserError SettingsError UnknownName AgentUnavailable WorkspaceBusy StoreError LeaseLost PluginFault",
    ),
)
KIT = (
    ("packages", ("PluginContract",)),
    ("agents", ("AgentContract",)),
    ("scenarios", ("Scenario",)),
    ("stores", ("CheckpointStoreContract",)),
    ("sinks", ("AuditSinkContract",)),
    ("policies", ("LimitPolicyContract",)),
)
HOME = ralph_core._MODULE_OF  # noqa: SLF001 - which module a constant stands in, which it does not say itself
STAND_INS = ("messages_api", "gemini_api", "chat_api", "responses_api")


# --- reading the code -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """What a class has under a name: `node` as it is written, and the words below it."""

    name: str
    node: ast.stmt
    words: str


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(import_module(module)))


def members(body: Sequence[ast.stmt], *, private: bool = False) -> list[Member]:
    """The public members that a class or a module defines itself, in their order."""
    found = []
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name, words = node.name, ast.get_docstring(node) or ""
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            below = after.value if isinstance(after, ast.Expr) else None
            words = inspect.cleandoc(str(below.value)) if isinstance(below, ast.Constant) else ""
        else:
            continue
        if private or not name.startswith("_"):
            found.append(Member(name, node, words))
    return found


def members_of(cls: type) -> list[Member]:
    return members(_class(cls).body)


def words(enum: type) -> dict[str, str]:
    """Of each member of an enumeration, by its value, the words below it."""
    told = {member.name: " ".join(member.words.split()) for member in members_of(enum)}
    return {str(member.value): told[member.name] for member in enum}  # type: ignore[attr-defined]


def _class(cls: type) -> ast.ClassDef:
    return next(
        node for node in tree(cls.__module__).body if isinstance(node, ast.ClassDef) and node.name == cls.__name__
    )


def signature(module: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """How a function begins, as it is written in its module."""
    lines = inspect.getsource(import_module(module)).splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    if not lines:  # all of it stands in one line
        return ast.unparse(node).partition(":\n")[0]
    return re.sub(r":(\s*#.*)?$", "", textwrap.dedent("\n".join(lines)))


# --- writing Markdown -------------------------------------------------------------------------------------------------


def page(head: str, groups: Sequence[Group]) -> str:
    written = head
    for group in groups:
        written += f"\n## {group.title}\n"
        written += "".join(entry(name) for name in group.names.split())
    return written


def entry(name: str) -> str:
    """A public name: what it is, and all that it has."""
    value = getattr(ralph_core, name)
    if name in EXTRA:
        return f"\n### {name}\n\n{EXTRA[name](value)}"
    if inspect.isclass(value):
        return f"\n### {name}\n\n{of_class(value)}"
    if inspect.isfunction(value):
        (node,) = [node for node in tree(value.__module__).body if getattr(node, "name", "") == name]
        return f"\n### {name}\n\n{_code(signature(value.__module__, node))}\n{_doc(value)}\n"
    home = f"ralph_core.{HOME[name]}" if name in HOME else "ralph_core"
    (member,) = [member for member in members(tree(home).body, private=True) if member.name == name]
    return f"\n### {name}\n\n{_code(ast.get_source_segment(inspect.getsource(import_module(home)), member.node) or '')}\n{member.words}\n"


def of_class(cls: type) -> str:
    bases = [base.__name__ for base in cls.__bases__ if base.__name__ in ralph_core.__all__]
    written = f"A kind of {_link(bases[0])}. " if bases else ""
    written += f"{_doc(cls)}\n"
    if issubclass(cls, BaseException):
        return written + _raised(cls)
    own = members_of(cls)
    fields = [member for member in own if isinstance(member.node, (ast.Assign, ast.AnnAssign))]
    if hasattr(cls, "__members__"):
        written += "\n| Member | Value | Meaning |\n|---|---|---|\n"
        written += "".join(
            f"| `{field.name}` | `{cls[field.name].value}` | {_cell(field.words)} |\n"  # type: ignore[index]
            for field in fields
        )
    elif any(field.words for field in fields):
        written += "\nMade with keyword arguments.\n" if "kw_only=True" in _marks(cls) else ""
        written += "\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n" + "".join(map(_row, fields))
    elif fields:
        written += f"\n{_code(_constructor(cls, fields))}"
    return written + "".join(_method(cls, member) for member in own if member not in fields and member.words)


def _marks(cls: type) -> str:
    return " ".join(map(ast.unparse, _class(cls).decorator_list))


def _row(field: Member) -> str:
    node = field.node
    assert isinstance(node, ast.AnnAssign)
    kind = ast.unparse(node.annotation).removeprefix("ClassVar[")
    kind = kind[:-1] if kind != ast.unparse(node.annotation) else kind
    default = f"`{value}`" if (value := _default(node.value)) else ""
    return f"| `{field.name}` | `{_bars(kind)}` | {_bars(default)} | {_cell(field.words)} |\n"


def _constructor(cls: type, fields: Sequence[Member]) -> str:
    """How it is made; for a class that is none to be made, its attributes."""
    told = []
    for field in fields:
        assert isinstance(field.node, ast.AnnAssign)
        default = f" = {value}" if (value := _default(field.node.value)) else ""
        told.append(f"{field.name}: {ast.unparse(field.node.annotation)}{default}")
    line = f"{cls.__name__}({', '.join(told)})"
    return line if len(line) <= 100 else "\n    ".join([f"{cls.__name__}(", *(f"{each}," for each in told)]) + "\n)"


def _default(node: ast.expr | None) -> str:
    """The default of a field, as one would write it; empty: it has none."""
    if not isinstance(node, ast.Call) or ast.unparse(node.func) != "field":
        return "" if node is None else ast.unparse(node)
    factory = next((ast.unparse(word.value) for word in node.keywords if word.arg == "default_factory"), "")
    return {"": "", "dict": "{}"}.get(factory, f"{factory}()")


def _method(cls: type, member: Member) -> str:
    node = member.node
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    if marks & {"property", "cached_property"}:
        return f"\n- `{member.name}: {ast.unparse(node.returns)}`: {_cell(member.words)}\n"  # type: ignore[arg-type]
    needed = "**To be implemented.** " if "abstractmethod" in marks else ""
    code = _code(signature(cls.__module__, node))
    return f"\n#### {cls.__name__}.{member.name}\n\n{code}\n{needed}{member.words}\n"


def _raised(cls: type) -> str:
    """How an error is made, if it is made otherwise than of one message."""
    made = [member for member in members(_class(cls).body, private=True) if member.name == "__init__"]
    if not made:
        return ""
    line = signature(cls.__module__, made[0].node).replace("def __init__(self, ", f"{cls.__name__}(")  # type: ignore[arg-type]
    return f"\n{_code(line.removesuffix(' -> None'))}"


def _doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "")


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _cell(text: str) -> str:
    return _bars(" ".join(text.split()))


def _bars(text: str) -> str:
    return text.replace("|", "\\|")


def _link(name: str) -> str:
    values = {each for group in VALUES for each in group.names.split()}
    return f"[{name}]({'values' if name in values else 'contract'}.md#{name.lower()})"


# --- what is told otherwise -------------------------------------------------------------------------------------------


def failures(cls: type[FailureKind]) -> str:
    """Every kind with what the loop does on it, by the tables that the loop goes by."""
    written = (
        f"{_doc(cls)}\n\n| Kind | Meaning | Counts towards `max_failures` | What Ralph does |\n|---|---|---|---|\n"
    )
    for kind, meaning in words(cls).items():
        counts = "yes" if cls(kind).agent_fault else "no"
        written += f"| `{kind}` | {_cell(meaning)} | {counts} | {_treatment(cls(kind))} |\n"
    written += (
        "\nAn iteration that is tried again is still the same one: it uses up none of `max_iterations`. `retry_after` is what the "
        "agent said in its `Failed` event. The hook [ralph_classify_failure](hooks.md#ralph_classify_failure) can correct a kind.\n"
    )
    return written + "".join(_method(cls, each) for each in members_of(cls) if isinstance(each.node, ast.FunctionDef))


def _treatment(kind: FailureKind) -> str:
    rest = COOL_DOWN.get(kind)
    if kind.agent_fault:
        if rest is None:
            return "The iteration has failed. The same agent makes the next one."
        return f"The iteration has failed. While there is another agent, this one is not used for `retry_after`, or {rest:.0f} s."
    if rest == FOR_EVER:
        return (
            "Not retried: unless it gave a `retry_after`, the agent is not used again in this sitting. "
            "Another agent tries the iteration at once; without one, the run fails (exit 1)."
        )
    if kind in LASTING:
        return (
            f"Waited out: the agent is not used for `retry_after`, or {rest:.0f} s. "
            "Another agent tries the iteration at once; without one, the run waits."
        )
    return (
        f"Retried: by another agent at once, while this one is not used for `retry_after`, or {rest:.0f} s; without one, after a "
        "pause (`retry_delay`, doubling, and `retry_after` at least), `retry_max` times at most. When all of them rest, the one "
        "whose `retry_after` is over first goes on."
    )


def _spec(cls: type) -> str:
    return (
        f"{_doc(cls)} A plugin need not subclass it; who does has its hooks type-checked. They are [here](hooks.md).\n"
    )


EXTRA = {"FailureKind": failures, "RalphSpec": _spec}


# --- pages ------------------------------------------------------------------------------------------------------------


def hooks_page() -> str:
    hooks = {member.name: member for member in members_of(RalphSpec)}
    declaring = {hook for hook, _ in KINDS.values()}
    written = HOOKS_HEAD
    written += "\n## Declared\n\nCalled once, when plugins are gathered; pure, no I/O. A plugin that raises here is not used.\n"
    written += "".join(_hook(hooks[name]) for name in hooks if name in declaring)
    written += "\n## In the loop\n\nAn exception, or an answer of the wrong type, stops the run (exit code 1) and names the plugin.\n"
    return written + "".join(_hook(hooks[name]) for name in hooks if name not in declaring)


def _hook(member: Member) -> str:
    assert isinstance(member.node, ast.FunctionDef)
    options = getattr(RalphSpec, member.name).ralph_spec
    first = "\n\nThe first answer that is not `None` wins." if options["firstresult"] else ""
    head = re.sub(r"\(self(, )?", "(", signature(RalphSpec.__module__, member.node))
    return f"\n### {member.name}\n\n{_code(head)}\n{member.words}{first}\n"


def contract_page() -> str:
    return page(CONTRACT_HEAD, CONTRACT)


def values_page() -> str:
    return page(VALUES_HEAD, VALUES)


def kit_page() -> str:
    written = KIT_HEAD
    for module, names in KIT:
        for name in names:
            written += _contract(getattr(import_module(f"ralph_core.testing.{module}"), name))
    written += (
        '\n## Fixtures\n\nTo be asked for: `pytest_plugins = ["ralph_core.testing.fixtures"]` in a `conftest.py`.\n\n'
    )
    written += "".join(f"- `{name}`: {text}\n" for name, text in fixtures("ralph_core.testing.fixtures"))
    written += "\n## Model APIs on loopback\n\nFor adapters whose program talks to a model: each can be scripted.\n\n"
    for module in STAND_INS:
        name = f"ralph_core.testing.{module}"
        first, *_ = (ast.get_docstring(tree(name)) or "").split("\n\n")
        written += f"- `{name}`: {_cell(first)}\n"
    return written


def fixtures(module: str) -> Iterator[tuple[str, str]]:
    """Name and meaning of the fixtures of a module."""
    for member in members(tree(module).body):
        if _is_fixture(member.node):
            yield member.name, _cell(member.words)


def _contract(cls: type) -> str:
    module = cls.__module__
    written = f"\n## {cls.__name__}\n\n`{module}.{cls.__name__}`: {_doc(cls)}\n"
    own = members_of(cls)
    if dataclasses.is_dataclass(cls):
        written += "\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n"
        return written + "".join(_row(each) for each in own if isinstance(each.node, ast.AnnAssign))
    example = re.findall(r"^(?:    .*\n|\n)+", (ast.get_docstring(tree(module)) or "") + "\n", re.MULTILINE)
    written += "".join(f"\n{_code(textwrap.dedent(text).strip())}" for text in example if text.strip())
    written += "\n| To be set or overridden | | Meaning |\n|---|---|---|\n"
    for each in own:
        if isinstance(each.node, ast.AnnAssign):
            default = f", unless set `{_default(each.node.value)}`"
            written += f"| `{each.name}` | class variable{default} | {_cell(each.words)} |\n"
        elif _is_fixture(each.node) and each.words.startswith("To be "):
            written += f"| `{each.name}` | fixture | {_cell(each.words)} |\n"
    written += "\n| Rule | What has to hold |\n|---|---|\n"
    for each in own:
        if each.name.startswith("test_"):
            written += f"| {each.name.removeprefix('test_').replace('_', ' ')} | {_cell(each.words)} |\n"
    return written


def _is_fixture(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        "pytest.fixture" in ast.unparse(mark) for mark in node.decorator_list
    )


PAGES = {
    "reference/hooks.md": hooks_page,
    "reference/contract.md": contract_page,
    "reference/values.md": values_page,
    "reference/kit.md": kit_page,
}
