"""The store on the conformance kit, in the state directory and elsewhere."""

import pytest

from ralph_core.testing.packages import PluginContract
from ralph_core.testing.stores import CheckpointStoreContract


class TestPlugin(PluginContract):
    plugin = "sqlite"


class TestStore(CheckpointStoreContract):
    provider = "sqlite"


class TestStoreInTheWorkspace(CheckpointStoreContract):
    provider = "sqlite"
    kills = 3

    @pytest.fixture
    def settings(self):
        return {"path": "data/runs.sqlite"}
