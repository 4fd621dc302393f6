"""What a program finds around it: warm modules, preludes, the readable part of the disk.

Standard library only.
"""

from __future__ import annotations

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
"""Everything common, and what needs a shared library, which a test process could not open. Not
`threading`: its handler for forks costs every test process 0.4 ms, whether it uses threads or
not."""
RECURSION = {"lcb": 50_000, "none": 1000}
"""The preludes and the recursion limit that goes with each."""


def prelude(name: str) -> dict[str, Any]:
    """Names that a program finds without importing them."""
    names: dict[str, Any] = {}
    if name == "lcb":
        for module in STARRED:
            exec(f"from {module} import *", names)
        for module in STARRED[:-2]:
            exec(f"import {module}", names)
    names.pop("__builtins__", None)
    return names


def library() -> tuple[list[str], list[str]]:
    """Paths a program may read (the standard library, no installed packages) and may list."""
    folders = [path for path in sys.path if os.path.isdir(path)]
    skipped = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip"}
    entries = [entry for folder in folders for entry in os.scandir(folder)]
    readable = [entry.path for entry in entries if entry.name not in skipped]
    return [*readable, *(path for path in ["/usr/share/zoneinfo"] if os.path.isdir(path))], folders


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
