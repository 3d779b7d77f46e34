"""The genuine Codex, if there is one here, and the file that leads it to a server on loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = """
model = "fake-model"
model_provider = "fake"
[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
env_key = "CODEX_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
[analytics]
enabled = false
"""


@pytest.fixture(scope="session")
def codex() -> str:
    """The program: RALPH_TEST_CODEX, the repository's own tools, or PATH."""
    local = Path(__file__).parents[3] / ".tools/node_modules/.bin/codex"
    found = os.environ.get("RALPH_TEST_CODEX") or (str(local) if local.exists() else shutil.which("codex"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Codex (npm install @openai/codex, or RALPH_TEST_CODEX)")
    return found


@pytest.fixture(scope="session")
def config() -> Callable[[str], str]:
    """What its `config.toml` says for the server at an address."""
    return lambda url: CONFIG.format(url=url)
