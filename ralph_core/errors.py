"""Everything that Ralph raises on purpose.

RalphError
├── UserError           the user's mistake: one line, exit 2, nothing lost
│   ├── SettingsError      a setting that is unknown, malformed or out of range
│   ├── UnknownName        a name that nothing answers to, with a suggestion
│   ├── AgentUnavailable   an agent that is known but can't run here
│   └── WorkspaceBusy      another run holds this workspace
├── StoreError          state or a snapshot could not be saved or loaded
│   └── LeaseLost          this writer was fenced off by a newer one
└── PluginFault         a plugin broke the contract; carries its name and distribution
"""

from __future__ import annotations

from collections.abc import Iterable


class RalphError(Exception):
    """Base of all errors that Ralph raises on purpose."""


class UserError(RalphError):
    """A mistake of the user's: `what` happened and, in `mend`, how to put it right. Shown as one line; exit code 2."""

    def __init__(self, what: str, *, mend: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.what} ({self.mend})" if self.mend else self.what


class SettingsError(UserError):
    """A setting that is unknown, malformed or out of range; the message says which, and where it came from."""


class UnknownName(UserError):
    """`name` is not one of `known`; the nearest known name is suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "") -> None:
        from difflib import get_close_matches  # only on the way to an error message

        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        mend = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        super().__init__(f"{where + ': ' if where else ''}unknown {kind} {name!r}", mend=mend)
        self.kind, self.name = kind, name


class AgentUnavailable(UserError):
    """The agent is known, but its program, version or credentials are missing here."""


class WorkspaceBusy(UserError):
    """Another live run holds the workspace."""


class StoreError(RalphError):
    """State or a snapshot could not be saved, loaded or restored; the message names the path."""


class LeaseLost(StoreError):
    """A newer writer has claimed the run: this one must stop, and must not write again."""


class PluginFault(RalphError):
    """A plugin raised, hung or answered nonsense. `plugin` and `distribution` say whose fault it is."""

    def __init__(self, plugin: str, what: str, *, distribution: str = "") -> None:
        super().__init__(f"plugin {plugin!r}{f' ({distribution})' if distribution else ''}: {what}")
        self.plugin, self.distribution, self.what = plugin, distribution, what
