"""What Gemini CLI could log in with, without asking it. Names are those of the bundle of 0.61.0; nothing here reads a secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

VARIABLES = ("GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GEMINI_CLI_USE_COMPUTE_ADC")
"""What selects a login."""

FILES = (".gemini/oauth_creds.json", ".gemini/gemini-credentials.json")
"""Logins that it keeps in the home directory, the second one where there is no keychain."""


def login(env: Mapping[str, str], workspace: Path, home: Path) -> str | None:
    """Where something to log in with was found, in words; None if it is nowhere that can be looked at."""
    for name in VARIABLES:
        if env.get(name):
            return name
    # It reads the nearest .env file, which may set what is looked for.
    folders = (workspace, *workspace.parents, home)
    dotenv = (folder / name for folder in folders for name in (".gemini/.env", ".env"))
    files = (*(home / name for name in FILES), *dotenv)
    return next((str(path) for path in files if path.is_file()), None)
