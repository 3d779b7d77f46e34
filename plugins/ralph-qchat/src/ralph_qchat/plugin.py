"""What ralph-qchat brings. Imported when plugins are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ralph_core.contracts import Agent, Provider
from ralph_core.hookspecs import hookimpl

RALPH_CONTRACT = "0.1"
SETTINGS = "ralph_qchat.settings:ChatSettings"
ENVIRONMENT = ("Q_*", "KIRO_*", "AMAZON_Q_*", "AWS_*", "QCHAT_*")
"""The variables that the two programs read, and this adapter itself."""

ABLE = frozenset({"model"})


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    """`q` and `qchat` are one agent under two names, and take whichever program is there; `kiro` takes Kiro CLI only."""
    q, qchat, kiro = (f"ralph_qchat.agent:{name}" for name in ("QAgent", "QChatAgent", "KiroAgent"))
    words = "Amazon Q Developer CLI (q chat), or its successor Kiro CLI; plain text"
    return (
        Provider("q", words, q, SETTINGS, ABLE, ENVIRONMENT),
        Provider("qchat", "the same as q", qchat, SETTINGS, ABLE, ENVIRONMENT),
        Provider("kiro", "Kiro CLI (kiro-cli chat); plain text", kiro, SETTINGS, ABLE, ENVIRONMENT),
    )
