"""What of Ralph's environment an agent's process is given, and where the keys come from that are not in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ralph_core.errors import SettingsError
from ralph_core.redaction import OWN, SECRET_NAME

if TYPE_CHECKING:
    from ralph_core.settings.tables import KeySettings

COMMON = (
    # the person, the terminal, the language
    *(
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "TERM",
        "TERM_PROGRAM",
        "COLORTERM",
        "NO_COLOR",
        "FORCE_COLOR",
        "EDITOR",
        "VISUAL",
    ),
    *("PAGER", "LANG", "LANGUAGE", "LC_*", "TZ", "DISPLAY", "WAYLAND_DISPLAY", "XDG_*", "HOSTNAME", "WSL_*", "CI"),
    # where programs and libraries are
    *(
        "PATH",
        "MANPATH",
        "LD_LIBRARY_PATH",
        "DYLD_*",
        "PKG_CONFIG_PATH",
        "TMPDIR",
        "TMP",
        "TEMP",
        "HOMEBREW_*",
        "NIX_*",
    ),
    # the network
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    # sockets of the person's agents, with which git and the CLIs log in
    *("SSH_AUTH_SOCK", "SSH_AGENT_PID", "GNUPGHOME", "DBUS_SESSION_BUS_ADDRESS", "DOCKER_HOST", "DOCKER_CONFIG"),
    # version control and build tools
    *("GIT_*", "MAKEFLAGS", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS", "ASDF_*", "MISE_*"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "PYENV_*", "PIP_*", "UV_*", "POETRY_*", "PIPX_*"),
    *("NODE_*", "NVM_*", "FNM_*", "VOLTA_HOME", "PNPM_HOME", "BUN_INSTALL", "DENO_*", "npm_config_*"),
    *("JAVA_HOME", "JDK_HOME", "MAVEN_*", "GRADLE_*", "ANDROID_*", "SDKMAN_*", "DOTNET_*"),
    *("GOPATH", "GOROOT", "GOBIN", "GOCACHE", "GOFLAGS", "GOMODCACHE", "GOPROXY", "GOPRIVATE", "GOTOOLCHAIN"),
    *("CARGO_*", "RUSTUP_*", "RUSTFLAGS", "RUSTC_WRAPPER", "GEM_HOME", "GEM_PATH", "BUNDLE_*", "RBENV_*"),
    # where a trace goes on
    "OTEL_*",
)
"""Names, with wildcards, of the variables that every agent's process is given if they are set. What a wildcard finds and
looks like a secret by its name is not among them."""
NOT_THEIRS = ("OTEL_SERVICE_NAME", *OWN)
"""Ralph's own: an agent that exports spans says itself who it is, and nobody else has to read the account."""


def environment_of(
    wanted: Sequence[str], env: Mapping[str, str], keys: Mapping[str, str], more: Mapping[str, str]
) -> dict[str, str]:
    """The environment of an agent for which variables are `wanted` (names, with wildcards), and `more`, as they are.

    `keys` are those that were fetched from elsewhere; what is set in `env`, Ralph's own environment, goes before them.
    """
    given = {name: value for name, value in {**keys, **env}.items() if _matches(name, wanted)}
    common = {name: value for name, value in env.items() if _is_common(name)}
    return {name: value for name, value in {**common, **given}.items() if name not in NOT_THEIRS} | dict(more)


def withheld(given: Iterable[Mapping[str, str]], env: Mapping[str, str]) -> list[str]:
    """The variables that look like secrets and that none of the agents is given: one of them may have been meant to be."""
    known = {name for environment in given for name in environment}
    return sorted(name for name in env if SECRET_NAME.search(name) and name not in (*known, *NOT_THEIRS))


def fetch_keys(settings: Mapping[str, KeySettings], workspace: Path) -> dict[str, str]:
    """The keys by the names of their variables. Raises `SettingsError` for one that can't be had."""
    return {name: _fetch(name, key, workspace) for name, key in settings.items()}


def _fetch(name: str, key: KeySettings, workspace: Path) -> str:
    if key.file is not None:
        path = Path(workspace, Path(key.file).expanduser())
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise SettingsError(f"keys.{name}.file: {path} can't be read: {reason}") from None
        if not value or len(value.split()) > 1:
            raise SettingsError(f"keys.{name}.file: {path} has to hold the key, and nothing else")
        return value
    assert key.keyring is not None
    try:
        import keyring  # heavy, and an extra
    except ImportError:
        raise SettingsError(
            f"keys.{name}.keyring: the package keyring is not installed", mend="pip install 'ralph-core[keyring]'"
        ) from None
    try:
        found: str | None = keyring.get_password(key.keyring, name) or keyring.get_password(key.keyring, name.lower())
    except Exception as error:  # each backend has errors of its own
        raise SettingsError(f"keys.{name}.keyring: {type(error).__name__}: {error}") from None
    if not found:
        raise SettingsError(
            f"keys.{name}.keyring: there is no {name} under {key.keyring!r}",
            mend=f"store it with `keyring set {key.keyring} {name}`",
        )
    return found


def _is_common(name: str) -> bool:
    return name in COMMON or (_matches(name, COMMON) and not SECRET_NAME.search(name))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
