"""What a program finds around it: warm modules, preludes, the readable part of the disk.

Standard library only.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

STARRED = [
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"),
    *(
        "statistics",
        "itertools",
        "functools",
        "operator",
        "io",
        "sys",
        "json",
        "builtins",
        "typing",
    ),
]
"""LiveCodeBench puts these star imports, then the plain imports, before every program."""
PRELOADED = [
    *STARRED,
    *("abc", "array", "ast", "base64", "bz2", "calendar", "cmath", "collections.abc", "ctypes"),
    *("dataclasses", "decimal", "difflib", "enum", "fractions", "hashlib", "lzma", "numbers"),
    *("pprint", "secrets", "signal", "struct", "textwrap", "time", "timeit", "traceback", "types"),
    *("unicodedata", "uuid", "weakref", "zlib"),
    *("encodings.ascii", "encodings.latin_1", "encodings.idna"),
]
"""Everything common. Not `threading`: its handler for forks costs every test process 0.4 ms, whether it uses threads
or not."""
PACKAGES = ("numpy", "numpy.libs")
"""Folders of installed packages that a program may read, where they are installed; imported only by those that ask."""
COMPILE_S = 5.0
"""CPU seconds for compiling a program with several tests; otherwise compiling counts as part of the one test."""
RECURSION = {"lcb": 50_000, "apps": 50_000, "none": 1000}
"""The preludes and the recursion limit that goes with each."""


SYSTEM_LIBRARIES = (
    *("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
    *("/lib64", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"),
)
"""Where the shared libraries are that numpy, ssl and others load, and the time zones."""
APPS_PRELUDE = """
import sys, time, itertools, collections, queue, random, operator, functools, math, fractions, heapq, bisect, re, string
from itertools import accumulate, product, permutations, combinations
from collections import Counter, OrderedDict, deque, defaultdict, ChainMap
from functools import lru_cache
from math import sqrt, sin, cos, tan, ceil, fabs, floor, gcd, exp, log, log2
from typing import List, Tuple
"""
"""What the official APPS grader puts before every program, but for numpy, which `Numpy` stands for."""


class Numpy:
    """The name `np` of the APPS prelude: imports numpy when a program first uses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("numpy"), name)


def prelude(name: str) -> dict[str, Any]:
    """Names that a program finds without importing them."""
    names: dict[str, Any] = {}
    if name == "lcb":
        for module in STARRED:
            exec(f"from {module} import *", names)
        for module in STARRED[:-2]:
            exec(f"import {module}", names)
    elif name == "apps":
        exec(APPS_PRELUDE, names)
        names["np"] = Numpy()
    names.pop("__builtins__", None)
    return names


def library(packages: str) -> tuple[list[str], list[str]]:
    """Paths a program may read (the standard library, `PACKAGES` in the folder `packages`) and may list."""
    folders = [path for path in sys.path if os.path.isdir(path) and path != packages]
    skipped = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip"}
    entries = [entry for folder in folders for entry in os.scandir(folder)]
    readable = [entry.path for entry in entries if entry.name not in skipped]
    allowed = [os.path.join(packages, name) for name in PACKAGES] if packages else []
    readable += [path for path in [*allowed, *SYSTEM_LIBRARIES] if os.path.exists(path)]
    return readable, [*folders, packages] if packages else folders


def hold_library_open() -> list[int]:
    """Import through open folders, which works where a parent folder (root's home) is private.

    Returns the descriptors that must stay open; they replace the real folders in `sys.path` and in
    the path of every package.
    """
    kept = []
    for folder in [path for path in sys.path if os.path.isdir(path)]:
        kept.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
        through = f"/proc/self/fd/{kept[-1]}"
        sys.path[sys.path.index(folder)] = through
        for module in list(sys.modules.values()):
            parts = getattr(module, "__path__", None)
            if isinstance(parts, list):
                parts[:] = [
                    through + part.removeprefix(folder) if part.startswith(folder + "/") else part for part in parts
                ]
    sys.path_importer_cache.clear()
    return kept
