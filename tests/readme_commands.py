"""Run the README's commands, in their order and as they are written, in a fresh clone of what is committed.

    python tests/readme_commands.py --model FOLDER        # a chat model in the place of /path/to/model
    python tests/readme_commands.py --list                # only say what would run

Commands that take hours are given a limit, and what another machine or the gate runs is left out; both are said. Stops
at the first command that fails. It is a script and no test, because it takes about as long as the test suite.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "/path/to/model"
# Of two problems of LeetCode none is short enough to train on; of four one is.
LIMITED = {
    "make reproduce PROFILE=laptop": "LIMIT=4",
    "make reproduce": "LIMIT=2",
    "make ablations": "LIMIT=1 SEEDS=1",
}
LEFT_OUT = {
    "make test": "the gate runs it",
    "make fetch-data PROFILE=paper": "it needs the hub",
    "make trace ITEM=T1 METHOD=cppo": "it needs the runs behind figures/, of hours",
}


def commands(readme: str) -> Iterator[str]:
    """Each command of the README's bash and python blocks, comments dropped and continued lines joined."""
    for kind, block in re.findall(r"^```(bash|python)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL):
        if kind == "python":
            yield f"python -c {shlex.quote(block)}"
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if words := re.sub(r"\s+#.*", "", line).strip():
                yield re.sub(r"\s+", " ", words)


def limited(command: str) -> str:
    """The command with a limit where it takes hours without one."""
    for start, limit in LIMITED.items():
        if command.startswith(start) and "LIMIT=" not in command:
            return f"{command} {limit}"
    return command


def main() -> int:
    """The command line; the exit status of the first command that fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="folder or hub id of a chat model")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    options = parser.parse_args()
    chosen = [limited(command) for command in commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        clone = Path(folder) / "clone"
        if not options.list:
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        path = f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        for command in chosen:
            why = LEFT_OUT.get(command) or ("it needs --model" if MODEL in command and not options.model else "")
            command = command.replace(MODEL, options.model or MODEL)
            print(f"{'left out: ' + why if why else 'run'}: {command.splitlines()[0]}", flush=True)
            if why or options.list:
                continue
            started = time.monotonic()
            status = subprocess.run(command, shell=True, cwd=clone, env=os.environ | {"PATH": path}).returncode
            print(f"exit status {status} after {time.monotonic() - started:.0f} s", flush=True)
            if status:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
