"""Builds the container image and tries it, on a machine without a container engine: buildah and root are enough.

    python tests/proofs/image.py [--python IMAGE] [--node IMAGE]

Where the base images can't be had, Debian's own packages (debootstrap) and this machine's Node.js take their place, and this
machine's certificates are trusted. In the image, as its user: the versions, the plugins, a loop of two iterations in the
workspace, and the health check of the Dockerfile, which has to succeed while a run is at work and to fail when it has ended.
All is done in a temporary folder. Prints what it sees; exit code 1 if something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
TRY = r"""
test "$(id -u)" = 1000
test "$(pwd)" = /workspace
ralph --version
ralph plugins --check | cut -c 1-40
claude --version
gemini --version
git init --quiet
step='echo x >>n; [ "$(wc -l <n)" -lt 2 ] || { touch ready; while [ ! -e go ]; do sleep 0.1; done; echo LOOP_COMPLETE; }'
ralph run -a command --command "$step" -p 'Count.' &
run=$!
n=0
until [ -e ready ]; do n=$((n + 1)); [ $n -lt 600 ]; sleep 0.1; done
"$@"
echo 'the health check says that the run is well'
touch go
wait $run
test "$(wc -l <n)" = 2
if "$@" 2>/dev/null; then echo 'the health check says that a run is well that has ended'; exit 1; fi
if touch /usr/local/here 2>/dev/null; then echo 'the user may write to the system'; exit 1; fi
"""


class Buildah:
    """Images and containers in a folder of their own, without a daemon, namespaces or mounts."""

    def __init__(self, folder: Path) -> None:
        self.command = [
            "buildah",
            "--root",
            folder / "images",
            "--runroot",
            folder / "state",
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *arguments) -> str:
        """Run it to its end; what it prints on standard output."""
        env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        command = list(map(str, [*self.command, *arguments]))
        done = subprocess.run(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{done.stdout}\nbuildah {arguments[0]}: exit code {done.returncode}")
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Whether a base image can be had."""
        command = list(map(str, [*self.command, "pull", "--quiet", image]))
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def stand_ins(buildah: Buildah, folder: Path) -> tuple[str, str]:
    """Base images with Debian's Python, and with this machine's Node.js."""
    tree = folder / "debian"
    command = ["debootstrap", "--variant=minbase", "--include=python3,python3-pip,ca-certificates", "bookworm", tree]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    (tree / "usr/bin/python").symlink_to("python3")
    for path in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        path.unlink()  # the image on the registry lets pip install, too
    shutil.copy(CERTIFICATES, tree / CERTIFICATES[1:])
    box = buildah("from", "scratch")
    buildah("copy", "--quiet", box, tree, "/")
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", box)
    buildah("config", "--env", f"PIP_CERT={CERTIFICATES}", "--env", f"NODE_EXTRA_CA_CERTS={CERTIFICATES}", box)
    buildah("commit", "--quiet", box, "localhost/python")
    node, npm = (Path(str(shutil.which(name))).resolve() for name in ("node", "npm"))
    buildah("copy", "--quiet", box, node, "/usr/local/bin/node")
    buildah("copy", "--quiet", box, npm.parents[1], "/usr/local/lib/node_modules/npm")
    buildah("run", box, "--", "ln", "-s", "../lib/node_modules/npm/bin/npm-cli.js", "/usr/local/bin/npm")
    buildah("commit", "--quiet", "--rm", box, "localhost/node")
    shutil.rmtree(tree)
    return "localhost/python", "localhost/node"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    bases = dict(re.findall(r"^ARG (PYTHON|NODE)=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE))
    parser.add_argument("--python", default=bases["PYTHON"])
    parser.add_argument("--node", default=bases["NODE"])
    wanted = parser.parse_args()
    if missing := [name for name in ("buildah", "debootstrap", "node", "npm") if shutil.which(name) is None]:
        parser.error(f"{missing[0]} is not installed (Debian: apt install buildah debootstrap nodejs npm)")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ralph-image-") as name:
        folder = Path(name)
        buildah = Buildah(folder)
        python, node = wanted.python, wanted.node
        if not (buildah.has(python) and buildah.has(node)):
            print(f"{python} and {node} can't be had: made from Debian's packages instead", flush=True)
            python, node = stand_ins(buildah, folder)
        print(f"base images after {time.monotonic() - began:.0f} s", flush=True)
        ignored = f"{DOCKERFILE}.dockerignore"
        build = [
            "bud",
            "--quiet",
            "--layers=false",
            "--format",
            "docker",
            "--ignorefile",
            ignored,
            "--file",
            DOCKERFILE,
        ]
        bases = ["--build-arg", f"PYTHON={python}", "--build-arg", f"NODE={node}"]
        buildah(*build, *bases, "--tag", "localhost/ralph", ".")
        print(f"image after {time.monotonic() - began:.0f} s", flush=True)
        image = json.loads(buildah("inspect", "--type", "image", "localhost/ralph"))["Docker"]["config"]
        kind, *health = image["Healthcheck"]["Test"]
        assert (image["Entrypoint"], image["Cmd"], image["User"], kind) == (["ralph"], ["run"], "1000", "CMD")
        box = buildah("from", "localhost/ralph")
        print(buildah("run", box, "--", "sh", "-euc", TRY, "sh", *health))
    print(f"all of it holds, after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
