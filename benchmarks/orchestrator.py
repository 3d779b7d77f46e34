"""ralph-orchestrator 1.2.3, the last Python release of Ralph's predecessor, in a virtual environment of its own.

It lies in `.tools/`, which git ignores and `make clean` removes; it is made once, from the package index.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tables import ENV

VERSION = "1.2.3"
HOME = Path(__file__).resolve().parents[1] / ".tools" / f"ralph-orchestrator-{VERSION}"
PROGRAM = HOME / "bin" / "ralph"
PAUSE = 2.0
"""Seconds that it sleeps after every iteration (`await asyncio.sleep(2)` in its loop; no setting changes that)."""
AGENT = "kiro"
"""The only one of its adapters that starts a plain command line once an iteration and works as shipped: `-a q` ends with
"Unknown tool: q"; that for Claude goes through an SDK; that for Gemini starts the program once more, to probe it."""


def wanted(count: int) -> bool:
    """Whether any of it is asked for, and it is there: it is installed now. If it can't be, says why."""
    if count <= 0:
        return False
    try:
        _install()
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        reason = next((line for line in said if line.startswith("ERROR")), said[-1])
        print(f"left out: ralph-orchestrator {VERSION} can't be installed: {reason}", file=sys.stderr)
        return False
    return True


def _install() -> None:
    whole = HOME / "whole"
    if whole.exists():
        return
    print(f"Installing ralph-orchestrator {VERSION} into {HOME} ...", file=sys.stderr)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)  # it writes a log where it is started
    pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", f"ralph-orchestrator=={VERSION}"]
    for argv in ([sys.executable, "-m", "venv", str(HOME)], pip, [str(PROGRAM), "--help"]):
        subprocess.run(argv, check=True, capture_output=True, text=True, timeout=600, cwd=HOME)
    whole.touch()


def command(iterations: int) -> list[str]:
    """As shipped: all settings have their defaults."""
    return [str(PROGRAM), "run", "--agent", AGENT, "--max-iterations", str(iterations)]


def environment(agent: Path, folder: Path) -> dict[str, str]:
    """With this script as the agent's program, which it looks for on PATH, where no genuine agent is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kiro-cli").unlink(missing_ok=True)
    (folder / "kiro-cli").symlink_to(agent)
    git = Path(shutil.which("git") or "git").parent
    return {**ENV, "PATH": f"{folder}:{git}:{os.defpath}", "HOME": str(folder)}
