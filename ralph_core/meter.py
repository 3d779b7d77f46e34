"""Counts what an attempt uses: every message once, unknown kept apart from zero, an estimate apart from a bill."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from . import pricing
from .contracts import Capability
from .events import Failed, Finished, Started, Tokens, Usage
from .state import Limits, Spend
from .values import dataclass

NONE = Tokens()
TRIFLE = 0.0001
"""US dollars by which figures may differ without a word."""
Price = Callable[[str | None, Tokens], float | None]


@dataclass(frozen=True)
class _Message:
    """What is known of one message. `cost` is the agent's own figure, or the `estimated` price of the tokens."""

    tokens: Tokens = NONE
    cost: float | None = None
    estimated: bool = False

    def spend(self) -> Spend:
        estimate = self.cost if self.estimated and self.cost is not None else 0.0
        return Spend(self.tokens, self.cost, 1 if self.cost is None else 0, estimate)


class Meter:
    """The spend of one attempt, as its events come in.

    A message costs what the agent says, else the price of its tokens, else it is unknown. The agent's own final figures are
    the bill, whether they are higher or lower than what was metered on the way.
    """

    def __init__(self, price: Price = pricing.price) -> None:
        self._price = price
        self._model: str | None = None
        self._messages: dict[str, _Message] = {}
        self._unpriced = 0
        self._sum = Spend()
        self._final: Spend | None = None

    def started(self, event: Started) -> None:
        """Take in the model that the agent says it uses; a message that names none is priced as that."""
        self._model = event.model or self._model

    def usage(self, event: Usage) -> None:
        """Take in a message's figures. Reported again, as CLIs do for each content block, the larger ones stand."""
        before = self._messages.get(event.message_id)
        known = before or _Message()
        tokens = known.tokens.at_least(event.tokens)
        said = None if known.estimated else known.cost
        if event.cost is not None:
            said = max(event.cost, said or 0.0)
        if said is not None:
            message = _Message(tokens, said)
        elif before is not None and tokens == known.tokens:
            return
        else:
            message = _Message(tokens, self._price(event.model or self._model, tokens), estimated=True)
        self._messages[event.message_id] = message
        self._count(before, message)

    def final(self, event: Finished | Failed) -> None:
        """Take in the agent's own totals. They are the bill where given; where not, what was metered stands."""
        tokens = event.usage if event.usage is not None else self._sum.tokens
        if event.cost is not None:
            self._final = Spend(tokens, event.cost)
            return
        rest = _beyond(tokens or Tokens(), self._sum.tokens or Tokens())
        if rest.total or not self._messages:  # more than its messages came to: priced as the model that it began with
            more = self._price(self._model, rest) if event.usage is not None else None
            cost = self._sum.cost if more is None else (self._sum.cost or 0.0) + more
            unknown = 1 if more is None or self._unpriced else 0
            self._final = Spend(tokens, cost, unknown, self._sum.estimated + (more or 0.0))
        else:
            metered = self.metered
            self._final = Spend(tokens, metered.cost, metered.unmetered, metered.estimated)

    @property
    def metered(self) -> Spend:
        """The sum of the messages, whatever the agent said at the end."""
        unknown = 1 if self._unpriced or not self._messages else 0
        return Spend(self._sum.tokens, self._sum.cost, unknown, self._sum.estimated)

    def spend(self) -> Spend:
        """What is known by now; `unmetered` is 1 while the cost, or a part of it, is not known."""
        return self._final or self.metered

    def differences(self) -> dict[str, Any]:
        """What was metered on the way, for the account, where it is not what the agent said at the end."""
        metered, billed = self.metered, self.spend()
        told: dict[str, Any] = {}
        if metered.tokens is not None and metered.tokens != billed.tokens:
            told["metered_tokens"] = metered.tokens.total
        if metered.cost is not None and abs(metered.cost - (billed.cost or 0.0)) > TRIFLE:
            told["metered_usd"] = round(metered.cost, 6)
        return told

    def _count(self, before: _Message | None, now: _Message) -> None:
        """Keep the sum up to date without adding up all messages each time: an attempt may have very many."""
        was = before or _Message(cost=0.0)
        self._unpriced += (now.cost is None) - (was.cost is None)
        tokens = (self._sum.tokens or Tokens()) + _beyond(now.tokens, was.tokens)
        cost, estimated = self._sum.cost, self._sum.estimated
        if now.cost is not None:
            cost = (cost or 0.0) + now.cost - (was.cost or 0.0)
            estimated += now.spend().estimated - was.spend().estimated
        self._sum = Spend(tokens, cost, 0, max(0.0, estimated))


def _beyond(tokens: Tokens, known: Tokens) -> Tokens:
    """What `tokens` are more than `known`."""
    return Tokens(
        max(0, tokens.input - known.input),
        max(0, tokens.output - known.output),
        max(0, tokens.cache_read - known.cache_read),
        max(0, tokens.cache_write - known.cache_write),
    )


# --- what can be held -------------------------------------------------------------------------------------------------

INSTALL = "pip install 'ralph-core[prices]'"


def unenforceable(able: AbstractSet[str]) -> dict[str, str]:
    """The limits that can't hold for an agent that is able to do this, and why: by the name of the policy."""
    if Capability.USAGE not in able:
        why = "it does not promise to report what it uses"
        return {"tokens": why} if Capability.COST in able else {"cost": why, "tokens": why}
    if Capability.COST not in able and not pricing.available():
        return {"cost": f"it reports tokens alone, and there is no price list ({INSTALL})"}
    return {}


def complaint(agent: str, able: AbstractSet[str], active: AbstractSet[str]) -> str | None:
    """What to say at the start about the limits that can't hold; `active` are the names of the policies."""
    missing = {limit: why for limit, why in unenforceable(able).items() if limit in active}
    if not missing:
        return None
    limits = " and ".join(f"max_{limit}" for limit in missing)
    return f"agent {agent}: {limits} can't be enforced: {next(iter(missing.values()))}"


def overshoot(agent: str, able: AbstractSet[str], limits: Limits, active: AbstractSet[str]) -> str | None:
    """How far an agent can get beyond the limits that do hold, in words; None if there are none."""
    held = [name for name in ("cost", "tokens") if name in active and name not in unenforceable(able)]
    if not held:
        return None
    figures = {"cost": f"${limits.cost:g}", "tokens": f"{limits.tokens:,} tokens"}
    bound = {name: _bound(name, able) for name in held}
    if len(set(bound.values())) == 1:
        return f"agent {agent}: {' and '.join(figures[name] for name in held)} can be exceeded by {bound[held[0]]}"
    return f"agent {agent}: " + "; ".join(f"{figures[name]} can be exceeded by {bound[name]}" for name in held)


def _bound(limit: str, able: AbstractSet[str]) -> str:
    live = Capability.USAGE_LIVE in able
    own = limit == "cost" and Capability.BUDGET in able
    if own or (live and (limit == "tokens" or pricing.available())):
        if Capability.SUB_AGENTS not in able:
            return "at most the one model message in flight"
        message = "at most the model message in flight, one of each agent that is at work"
        return message if own else f"{message}, and by what its sub-agents wrote in the iteration"
    return "at most what one iteration uses: it is known when that ends"
