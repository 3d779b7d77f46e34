"""What tokens cost, for agents that do not say it themselves: list prices, from a library that is kept up to date by others.

The library (genai-prices, the extra `prices`) is imported when the first price is asked for: it takes a third of a second.
It never goes to the network unless told to, which Ralph does not.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from .events import Tokens

LIBRARY = "genai_prices"
_loaded: Any = None


def available() -> bool:
    """Whether the library is installed."""
    return find_spec(LIBRARY) is not None


def load() -> None:
    """Import the library if it is there; slow the first time, so best done in a thread."""
    global _loaded  # noqa: PLW0603 - an import that is remembered, also when it failed
    if _loaded is None:
        try:
            import genai_prices
        except ImportError:
            _loaded = False
        else:
            _loaded = genai_prices


def loaded() -> bool:
    """Whether `load` has been called."""
    return _loaded is not None


def price(model: str | None, tokens: Tokens) -> float | None:
    """US dollars for these tokens of this model; None if it is not known, which is not zero."""
    load()
    if not model or not _loaded:
        return None
    cached = tokens.cache_read + tokens.cache_write
    try:
        # The library counts what was read from and written to caches as input, too.
        usage = _loaded.Usage(
            input_tokens=tokens.input + cached,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
        )
        return float(_loaded.calc_price(usage, model_ref=model).total_price)
    except Exception:
        return None  # LookupError for a model that it does not know; whatever else it may be, the price is not known
