"""What an attempt used: each message once, the agent's own figures first, and what nobody knows is not zero."""

import pytest

from ralph_core import pricing
from ralph_core.contracts import Capability
from ralph_core.events import Failed, FailureKind, Finished, Started, Tokens, Usage
from ralph_core.meter import Meter, complaint, overshoot, unenforceable
from ralph_core.pricing import price
from ralph_core.state import Limits, Spend

OPUS = "claude-opus-4-8"
ALL = {"cost", "tokens"}


def meter(*events, price=lambda model, tokens: tokens.total / 1000 if model else None):
    meter = Meter(price)
    for event in events:
        {Usage: meter.usage, Started: meter.started}.get(type(event), meter.final)(event)
    return meter


class TestPrices:
    """List prices, of a library; checked against what Claude Code said of the same tokens."""

    def test_are_those_that_claude_code_bills(self):
        assert price(OPUS, Tokens(100, 25, 20, 10)) == pytest.approx(0.0011975)
        assert price(OPUS, Tokens(1577, 135, 33, 22)) == pytest.approx(0.011414)

    def test_count_cached_tokens_once(self):
        plain = price(OPUS, Tokens(input=1000))
        assert price(OPUS, Tokens(input=1000, cache_read=1000)) == pytest.approx(plain * 1.1)
        assert price(OPUS, Tokens(cache_read=1000)) == pytest.approx(plain * 0.1)
        assert price(OPUS, Tokens(cache_write=1000)) == pytest.approx(plain * 1.25)

    def test_are_those_of_the_model_whatever_its_context_is_called(self):
        assert price("claude-opus-4-8[1m]", Tokens(input=1000)) == price(OPUS, Tokens(input=1000))
        assert price("gemini-2.5-flash", Tokens(input=10**6)) == pytest.approx(0.3)

    @pytest.mark.parametrize("model", ["fake-model-x", "auto", "", None])
    def test_of_a_model_nobody_knows_are_unknown(self, model):
        assert price(model, Tokens(1000, 1000)) is None

    def test_are_unknown_without_the_library(self, monkeypatch):
        monkeypatch.setattr(pricing, "_loaded", False)
        assert price(OPUS, Tokens(1000)) is None

    def test_are_looked_for_without_being_loaded(self, monkeypatch):
        assert pricing.available()
        monkeypatch.setattr(pricing, "LIBRARY", "no_such_library")
        assert not pricing.available()


class TestMessages:
    def test_nothing_reported_is_unknown(self):
        assert meter().spend() == Spend(None, None, unmetered=1)

    def test_a_message_reported_again_counts_once_with_its_larger_figures(self):
        again = [
            Usage("a", Tokens(10, 1), cost=0.1),
            Usage("a", Tokens(10, 30), cost=0.3),
            Usage("a", Tokens(10, 1), cost=0.1),
        ]
        assert meter(*again, Usage("b", Tokens(5, 5), cost=0.2)).spend() == Spend(Tokens(15, 35), pytest.approx(0.5), 0)

    def test_the_agents_own_cost_wins_over_a_price(self):
        assert meter(Usage("a", Tokens(500, 500), OPUS, cost=7.0)).spend().cost == 7.0
        late = meter(Usage("a", Tokens(500, 500), OPUS), Usage("a", Tokens(500, 500), OPUS, cost=7.0)).spend()
        assert (late.cost, late.estimated) == (pytest.approx(7.0), 0.0)

    def test_tokens_alone_are_priced_and_marked_as_an_estimate(self):
        spend = meter(Usage("a", Tokens(500), OPUS), Usage("a", Tokens(500, 500), OPUS)).spend()
        assert spend == Spend(Tokens(500, 500), pytest.approx(1.0), 0, pytest.approx(1.0))

    def test_a_message_that_names_no_model_is_of_the_one_the_agent_began_with(self):
        assert meter(Started(None, OPUS), Usage("a", Tokens(2000))).spend().cost == 2.0

    def test_a_cost_that_is_known_in_part_is_not_called_known(self):
        spend = meter(Usage("a", Tokens(1), cost=0.5), Usage("b", Tokens(1))).spend()
        assert (spend.cost, spend.unmetered) == (0.5, 1)

    def test_a_message_without_any_figure_has_no_cost_either(self):
        spend = meter(Usage("a", Tokens())).spend()
        assert (spend.tokens, spend.cost, spend.unmetered) == (Tokens(), None, 1)

    def test_very_many_messages_are_no_matter(self):
        many = meter(*(Usage(str(number % 20_000), Tokens(1), cost=0.001) for number in range(60_000)))
        assert many.spend() == Spend(Tokens(20_000), pytest.approx(20.0), 0)


class TestFinalFigures:
    """The agent's own totals are the bill."""

    SEEN = (Usage("a", Tokens(1000, 1000), OPUS),)

    @pytest.mark.parametrize(
        "final", [Finished("", Tokens(1, 1), 0.5), Failed(FailureKind.AGENT, "", None, Tokens(1, 1), 0.5)]
    )
    def test_win_over_what_was_metered_higher_or_lower(self, final):
        metered = meter(*self.SEEN, final)
        assert metered.spend() == Spend(Tokens(1, 1), 0.5)
        assert metered.differences() == {"metered_tokens": 2000, "metered_usd": 2.0}

    def test_that_are_what_was_metered_are_not_worth_a_word(self):
        assert meter(*self.SEEN, Finished("", Tokens(1000, 1000), 2.00001)).differences() == {}

    def test_without_a_cost_leave_the_estimate(self):
        assert meter(*self.SEEN, Finished("", Tokens(1000, 1000))).spend() == Spend(Tokens(1000, 1000), 2.0, 0, 2.0)
        assert meter(*self.SEEN, Finished("")).spend() == Spend(Tokens(1000, 1000), 2.0, 0, 2.0)

    def test_that_are_the_only_ones_are_priced_as_the_model_it_began_with(self):
        assert meter(Started(None, OPUS), Finished("", Tokens(3000))).spend() == Spend(Tokens(3000), 3.0, 0, 3.0)
        assert meter(Started(None, None), Finished("", Tokens(3000))).spend() == Spend(Tokens(3000), None, 1)

    def test_beyond_the_messages_are_priced_for_what_is_beyond(self):
        spend = meter(Started(None, OPUS), *self.SEEN, Finished("", Tokens(1000, 2000))).spend()
        assert spend == Spend(Tokens(1000, 2000), 3.0, 0, 3.0)
        unknown = meter(*self.SEEN, Finished("", Tokens(1000, 2000))).spend()
        assert (unknown.cost, unknown.unmetered) == (2.0, 1)

    def test_a_finish_without_figures_stays_unknown(self):
        assert meter(Finished("done")).spend() == Spend(None, None, 1)


class TestTotals:
    def test_unknown_and_known_add_up_to_known_in_part(self):
        total = Spend(Tokens(1), 0.5) + Spend(None, None, 1) + Spend(Tokens(2), 0.25, 0, 0.25)
        assert total == Spend(Tokens(3), 0.75, 1, 0.25)

    def test_a_total_never_goes_down(self):
        shown = Spend(Tokens(10, 10), 2.0, 1, 2.0)
        assert shown.at_least(Spend(Tokens(10, 5), 1.5)) == Spend(Tokens(10, 10), 2.0, 0, 2.0)
        assert shown.at_least(Spend(Tokens(20, 5), 2.5)) == Spend(Tokens(20, 10), 2.5)
        assert shown.at_least(Spend()) == Spend(Tokens(10, 10), 2.0, 0, 2.0)


class TestWhatCanBeHeld:
    """What is said at the start comes from what the agent promises."""

    def test_an_agent_that_promises_nothing_is_named_with_both_limits(self):
        told = complaint("q", frozenset({"tools"}), ALL)
        assert told == "agent q: max_cost and max_tokens can't be enforced: it does not promise to report what it uses"
        assert overshoot("q", frozenset(), Limits(), ALL) is None

    def test_limits_that_are_switched_off_are_not_mentioned(self):
        assert "max_cost" not in complaint("q", frozenset(), {"tokens"})
        assert complaint("q", frozenset(), frozenset()) is None

    def test_tokens_without_a_price_list_bound_tokens_only(self, monkeypatch):
        able = frozenset({Capability.USAGE})
        assert unenforceable(able) == {}
        monkeypatch.setattr(pricing, "available", lambda: False)
        assert list(unenforceable(able)) == ["cost"]
        assert "ralph-core[prices]" in complaint("gemini", able, ALL)

    def test_the_overshoot_is_that_of_the_way_it_reports(self):
        at_the_end = overshoot("gemini", {"usage"}, Limits(), ALL)
        assert at_the_end == "agent gemini: $50 and 1,000,000 tokens can be exceeded by at most what one iteration uses: it is known when that ends"  # fmt: skip
        live = overshoot("acme", {"usage", "usage-live", "cost"}, Limits(cost=2.5), ALL)
        assert (
            live == "agent acme: $2.5 and 1,000,000 tokens can be exceeded by at most the one model message in flight"
        )
        claude = overshoot("claude", {"usage", "usage-live", "cost", "budget", "sub-agents"}, Limits(), ALL)
        assert "; 1,000,000 tokens can be exceeded by" in claude
        assert claude.endswith("and by what its sub-agents wrote in the iteration")
