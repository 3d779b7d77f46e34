r"""Shows that money is bounded: agents that would spend for ever, under random budgets, and what they had spent when it ended.

    python tests/proofs/budget.py [--budgets N] [--genuine N] [--claude PATH] [--seed N] [--jobs N]

The agent of the first part is a script that streams usage for ever, ignores TERM and INT, and leaves children in sessions of
their own that ignore them too. It keeps a ledger of its own, of every message that it has begun. After each run: the exit
code is 3, the limit that ended it is named, the bill is what the ledger says, it is above the cap by one message at most, and
no process is left. A message takes half a second, which is quick for a model. One that is begun before Ralph has killed the
agent may come on top, and is counted apart.

The second part is the genuine Claude Code (RALPH_TEST_CLAUDE or --claude) against the Messages API on loopback, that bills
every request it has answered: a main agent that calls tools for ever, one message that never ends, and a sub-agent that
calls tools for ever. Prints a line of figures; exit code 1 if a bound did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

MESSAGE = 0.5
"""Seconds that a message of the scripted agent takes."""
AGENT = """\
cat > /dev/null
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM INT HUP; while :; do sleep 5; done' < /dev/null > /dev/null 2>&1 &
(trap '' TERM; setsid sh -c 'sleep 1000 & sleep 1000' < /dev/null > /dev/null 2>&1) &
n=0
while :; do
    n=$((n + 1))
    echo begun >> "$PROOF/ledger"
    printf '{"type": "usage", "message_id": "m%s", "tokens": {"input": INPUT, "cache_read": CACHED}, "cost": COST0}\\n' $n
    sleep DURATION
    printf '{"type": "usage", "message_id": "m%s", "tokens": {"input": INPUT, "output": OUTPUT, "cache_read": CACHED}, "cost": COST}\\n' $n
    echo told >> "$PROOF/ledger"
done
"""


class Broken(Exception):
    """A promise that does not hold."""


@dataclass(frozen=True)
class Budget:
    """What one run may spend, and what its agent spends with each message."""

    number: int
    cost: float
    tokens: tuple[int, int, int]  # input, output, read from a cache
    max_cost: float
    max_tokens: int
    policy: str

    @classmethod
    def at_random(cls, number: int, dice: random.Random) -> Budget:
        cost = round(dice.uniform(0.001, 2.0), 6)
        tokens = (dice.randint(1, 20_000), dice.randint(1, 5_000), dice.randint(0, 100_000))
        policy = dice.choice(["cost", "tokens"])
        messages = dice.uniform(0.05, 5.0)
        most_cost = round(max(0.000002, cost * messages), 6) if policy == "cost" else 1e6
        most_tokens = max(1, int(sum(tokens) * messages)) if policy == "tokens" else 10**9
        return cls(number, cost, tokens, most_cost, most_tokens, policy)

    @property
    def cap(self) -> float:
        return self.max_cost if self.policy == "cost" else self.max_tokens

    @property
    def message(self) -> float:
        """What one message comes to, in the unit of the cap."""
        return self.cost if self.policy == "cost" else sum(self.tokens)

    def script(self) -> str:
        values = {"INPUT": self.tokens[0], "OUTPUT": self.tokens[1], "CACHED": self.tokens[2], "DURATION": MESSAGE}
        values |= {"COST0": self.cost / 4, "COST": self.cost}
        text = AGENT
        for name, value in sorted(values.items(), reverse=True):
            text = text.replace(name, str(value))
        return text


@dataclass
class Figures:
    """What came of it: by how many messages the recorded spend was above the cap, and what was seen on the way."""

    over: list[float] = field(default_factory=list)
    begun_over: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def line(self) -> dict[str, object]:
        over = self.over or [0.0]
        return {
            "runs": len(self.over) + len(self.failures),
            "worst_overshoot_messages": round(max(over), 3),
            "median_overshoot_messages": round(statistics.median(over), 3),
            "worst_with_what_was_begun": round(max(self.begun_over or [0.0]), 3),
            "failures": len(self.failures),
        }


def work(folder: Path, budget: Budget) -> int:
    """In the forked process: the run."""
    os.setsid()
    os.chdir(folder / "work")
    sys.stdout = sys.stderr = open(folder / "said", "w")  # noqa: SIM115
    clean()
    os.environ["PROOF"] = str(folder)
    from ralph_core.cli.app import run_app

    limits = ["--max-cost", f"{budget.max_cost:.6f}", "--max-tokens", str(budget.max_tokens)]
    return run_app(["run", "-a", "command", "--command", f"sh {folder}/agent.sh", "-p", "spend", *limits])


def begin(parent: Path, budget: Budget) -> tuple[int, Path]:
    folder = parent / str(budget.number)
    (folder / "work").mkdir(parents=True)
    (folder / "agent.sh").write_text(budget.script())
    (folder / "work/ralph.yml").write_text(
        "git_enabled: false\nenvironment: {allow: [PROOF]}\nagents: {command: {output: events}}\n"
    )
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work(folder, budget))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(99)
    return pid, folder


def check(folder: Path, budget: Budget, code: int, figures: Figures) -> None:
    """What has to hold when Ralph has ended."""
    no_process_left(folder)
    if code != 3:
        raise Broken(f"exit code {code}: {(folder / 'said').read_text()[-800:]}")
    (file,) = (folder / "work/.agent/runs").glob("*/state.json")
    state = json.loads(file.read_text())["state"]
    if (state["outcome"]["kind"], state["outcome"]["by"]) != ("stopped", budget.policy):
        raise Broken(f"it ended otherwise: {state['outcome']}")
    spend = state["spend"]["cost"] if budget.policy == "cost" else sum(state["spend"]["tokens"].values())
    ledger = (folder / "ledger").read_text().split()
    begun, told = ledger.count("begun"), ledger.count("told")
    if spend < told * budget.message - 1e-6:
        raise Broken(f"{told} messages of {budget.message} were reported, {spend} is on the bill")
    if spend > begun * budget.message + 1e-6:
        raise Broken(f"{begun} messages of {budget.message} were begun, {spend} is on the bill")
    if spend < budget.cap - 1e-6:
        raise Broken(f"stopped at {spend}, below the cap of {budget.cap}")
    if spend > budget.cap + budget.message + 1e-6:
        raise Broken(f"{spend} was spent: more than one message of {budget.message} above the cap of {budget.cap}")
    figures.over.append((spend - budget.cap) / budget.message)
    figures.begun_over.append((begun * budget.message - budget.cap) / budget.message)


def no_process_left(folder: Path) -> None:
    mark = f"PROOF={folder}\0".encode()
    until = time.monotonic() + 3
    while left := [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in environment(pid) + b"\0"]:
        if time.monotonic() > until:
            raise Broken(f"processes are left: {left}")
        time.sleep(0.01)


def environment(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def clean() -> None:
    for name in [name for name in os.environ if name.startswith(("RALPH_", "OTEL_", "ANTHROPIC_", "CLAUDE"))]:
        del os.environ[name]


def prove(budgets: int, seed: int, jobs: int) -> Figures:
    """The first part, several runs at a time."""
    import opentelemetry.sdk.trace  # noqa: F401

    import ralph_core.session  # noqa: F401 - warm, so that the forked processes need not import it again

    dice, figures = random.Random(seed), Figures()
    waiting = [Budget.at_random(number, dice) for number in range(budgets)]
    running: dict[int, tuple[Path, Budget]] = {}
    with tempfile.TemporaryDirectory(prefix="ralph-budget-") as place:
        while waiting or running:
            while waiting and len(running) < jobs:
                budget = waiting.pop()
                pid, folder = begin(Path(place), budget)
                running[pid] = folder, budget
            pid, status = os.waitpid(-1, 0)
            if pid not in running:
                continue
            folder, budget = running.pop(pid)
            try:
                check(folder, budget, os.waitstatus_to_exitcode(status), figures)
            except Exception as error:
                figures.failures.append(f"{budget}: {type(error).__name__}: {error}")
                print(figures.failures[-1], file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)
    return figures


# --- the genuine Claude Code ------------------------------------------------------------------------------------------


def prove_genuine(claude: str, budgets: int, seed: int) -> dict[str, Figures]:
    """The second part: each kind of spending, by cost and by tokens, `budgets` of each."""
    dice = random.Random(seed)
    found: dict[str, Figures] = {}
    for kind in ("tools", "endless", "sub-agent"):
        for policy in ("cost", "tokens"):
            figures = found[f"{kind}/{policy}"] = Figures()
            for _ in range(budgets):
                try:
                    genuine(claude, kind, policy, dice, figures)
                except Exception as error:
                    figures.failures.append(f"{kind}, {policy}: {type(error).__name__}: {error}")
                    print(figures.failures[-1], file=sys.stderr, flush=True)
    return found


def genuine(claude: str, kind: str, policy: str, dice: random.Random, figures: Figures) -> None:
    """One run of Ralph with Claude Code under one random budget. Every request is on the bill, answered or not."""
    import subprocess

    from ralph_core.events import Tokens
    from ralph_core.pricing import price
    from ralph_core.testing.messages_api import Fault, MessagesAPI, Received, Reply, text, tool_use

    usage = Tokens(dice.randint(100, 5000), dice.randint(500, 5000), dice.randint(0, 50_000), dice.randint(0, 5000))
    said = price("claude-opus-4-8", usage)
    assert said is not None
    message = said if policy == "cost" else float(usage.total)
    cap = message * dice.uniform(0.5, 5.0)
    billed: list[Tokens] = []

    def answer(request: Received) -> Reply:
        billed.append(usage)
        time.sleep(MESSAGE)
        if kind == "endless":
            return Reply(
                [text("and so on")], Tokens(usage.input, 1, usage.cache_read, usage.cache_write), Fault.ENDLESS
            )
        if kind == "sub-agent" and "SIDE WORK" not in request.texts():
            billed[-1] = Tokens(1, 1)
            task = {"description": "side", "prompt": "SIDE WORK", "subagent_type": "general-purpose"}
            return Reply([tool_use("Task", task)], billed[-1])
        return Reply([tool_use("Bash", {"command": f"echo {len(billed)}", "description": "on"})], usage)

    with tempfile.TemporaryDirectory(prefix="ralph-budget-") as place, MessagesAPI(answer) as api:
        folder = Path(place)
        (folder / "work").mkdir()
        (folder / "home").mkdir()
        settings = f"git_enabled: false\nenvironment: {{allow: [PROOF]}}\nagents: {{claude: {{executable: {claude}, model: opus}}}}\n"
        (folder / "work/ralph.yml").write_text(settings)
        env = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "LANG": "C.UTF-8", "PROOF": place, **api.env()}
        limit = (
            ["--max-cost", f"{cap:.6f}"] if policy == "cost" else ["--max-tokens", str(int(cap)), "--max-cost", "1e6"]
        )
        command = [sys.executable, "-m", "ralph_core", "run", "-a", "claude", "-p", "MAIN WORK", *limit]
        done = subprocess.run(command, cwd=folder / "work", env=env, capture_output=True, text=True, timeout=120)
        no_process_left(folder)
        if done.returncode != 3:
            raise Broken(f"exit code {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}")
        (file,) = (folder / "work/.agent/runs").glob("*/state.json")
        state = json.loads(file.read_text())["state"]
        if (state["outcome"]["kind"], state["outcome"]["by"]) != ("stopped", policy):
            raise Broken(f"it ended otherwise: {state['outcome']}")
        metered = state["spend"]["cost"] if policy == "cost" else sum(state["spend"]["tokens"].values())
        over, bill = (metered - cap) / message, sum(billed, Tokens())
        real = (price("claude-opus-4-8", bill) or 0.0) if policy == "cost" else bill.total
        figures.over.append(over)
        figures.begun_over.append((real - cap) / message)
        if kind != "endless" and over > 1.01:
            raise Broken(f"metered {metered}, more than one message of {message} above the cap of {cap}")
        unseen = usage.output * (len(billed) - 1) if (kind, policy) == ("sub-agent", "tokens") else 0
        if kind != "endless" and real > cap + 2.01 * message + unseen:
            raise Broken(f"{len(billed)} requests, {real} billed: more than the message in flight above {cap}")
        if kind == "endless" and metered > cap * 1.5 + 1000:
            raise Broken(f"metered {metered} of {cap} in a message that grew")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--budgets", type=int, default=1000, help="runs of the scripted agent")
    parser.add_argument("--genuine", type=int, default=3, help="runs of Claude Code of each kind")
    parser.add_argument("--claude", default=os.environ.get("RALPH_TEST_CLAUDE") or shutil.which("claude"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1))
    options = parser.parse_args()
    began, failures = time.monotonic(), 0
    if options.budgets:
        figures = prove(options.budgets, options.seed, options.jobs)
        failures += len(figures.failures)
        print(
            json.dumps({"agent": "scripted", **figures.line(), "seconds": round(time.monotonic() - began, 1)}),
            flush=True,
        )
    if options.genuine and options.claude:
        for name, figures in prove_genuine(options.claude, options.genuine, options.seed).items():
            failures += len(figures.failures)
            print(json.dumps({"agent": f"claude {name}", **figures.line()}), flush=True)
    elif options.genuine:
        print("no genuine Claude Code: RALPH_TEST_CLAUDE or --claude", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
