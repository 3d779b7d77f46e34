"""The plugin on the conformance kit, and what the sandbox shows and hides."""

import os
import shutil
import subprocess

import pytest
import ralph_bubblewrap

from ralph_core import Command, SpawnError
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.values import fresh_state


class TestPlugin(PluginContract):
    plugin = "bubblewrap"


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("RALPH_SANDBOX_HOME", "RALPH_SANDBOX_NETWORK"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("work", "home"):
        (tmp_path / folder).mkdir()
    (tmp_path / "home" / "secret").write_text("s")
    return tmp_path


def run(place, step):
    """What a command prints that the hook has put into the sandbox."""
    if shutil.which("bwrap") is None:
        pytest.skip("no bwrap on PATH (Debian: apt install bubblewrap)")
    env = {"PATH": os.environ["PATH"], "HOME": str(place / "home")}
    command = Command(("sh", "-c", step), env, str(place / "work"))
    prepared = ralph_bubblewrap.ralph_prepare_command(command, fresh_state(workspace=str(place / "work")))
    done = subprocess.run(prepared.argv, env=dict(prepared.env), cwd=prepared.cwd, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_the_workspace_is_writable_and_the_home_is_hidden(place):
    assert run(place, "echo in > made; ls -A ~; echo lost > ~/lost") == ""
    assert (place / "work" / "made").read_text() == "in\n"
    assert not (place / "home" / "lost").exists()


def test_what_is_named_of_the_home_is_shown(place, monkeypatch):
    monkeypatch.setenv("RALPH_SANDBOX_HOME", "secret")
    assert run(place, "cat ~/secret") == "s"


def test_nothing_else_is_writable(place):
    assert "Read-only file system" in run(place, "echo x > /etc/ralph-was-here")


def test_no_network_if_so_chosen(place, monkeypatch):
    monkeypatch.setenv("RALPH_SANDBOX_NETWORK", "0")
    assert run(place, "tail -n +3 /proc/net/dev | cut -d: -f1").split() == ["lo"]


def test_without_bubblewrap_nothing_is_started(place, monkeypatch):
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(SpawnError, match="no `bwrap` on PATH"):
        ralph_bubblewrap.ralph_prepare_command(Command(("sh",), {}, str(place)), fresh_state())
