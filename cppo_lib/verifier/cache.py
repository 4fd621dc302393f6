"""Verdicts by content: a SQLite file that several processes share, or the same in memory.

A key covers everything that can change a verdict: program text, tests, mode, comparator, limits,
prelude, Python version, isolation layers, verifier version. The program counts byte by byte: to
normalise it, the parent would have to parse model-written text, and a parser's crash there would
take the trainer down. Rows hold verdicts and times, no inputs or outputs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cppo_lib.data.problem import Problem
from cppo_lib.verifier import compare

VERSION = 9
"""Raise it whenever a change to the verifier can change a verdict."""
PATIENCE_S = 60.0
"""How long to wait for others to be done with the file."""
_BATCH = 500
_TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key BLOB PRIMARY KEY, row TEXT) WITHOUT ROWID"


def problem_digest(problem: Problem, layers: Mapping[str, str], rules: Mapping[str, float]) -> bytes:
    """Digest of everything but the program; `rules` are the verifier's own (when to stop)."""
    tests = [[test.input, test.expected] for test in problem.tests]
    everything = [
        VERSION, sys.version, problem.mode, problem.fn_name, compare.comparator_version(problem.comparator),
        problem.prelude, problem.cpu_limit_s, problem.memory_mb, sorted(layers.items()), sorted(rules.items()), tests,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(everything).encode()).digest()


def program_key(digest: bytes, program: str) -> bytes:
    """Key of a program on a problem with this digest."""
    return hashlib.sha256(digest + program.encode("utf-8", "surrogatepass")).digest()


class CacheWarning(UserWarning):
    """The cache file cannot be used, and verdicts are kept in memory."""


class Cache:
    """Batch look-up and batch insert. `path` None keeps verdicts in memory.

    A cache saves time and may cost some, but never a run: a file that is in use is waited for, and after `PATIENCE_S`,
    or where it cannot be used at all (damaged, a full disk, a file system without locks), verdicts are kept in memory
    from then on, with one `CacheWarning`.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(_TABLE)
        if path is not None:
            self._try(lambda: self._open(path))

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            file = sqlite3.connect(path, PATIENCE_S, check_same_thread=False, isolation_level="IMMEDIATE")
            undo.callback(file.close)
            # Several processes that make the file at once: SQLite's own waiting does not cover this change of mode.
            until = time.monotonic() + PATIENCE_S
            while not _done(lambda: file.execute("PRAGMA journal_mode=WAL"), until):
                time.sleep(random.uniform(0.01, 0.1))
            file.execute("PRAGMA synchronous=NORMAL")
            file.execute(_TABLE)
            file.commit()
            undo.pop_all()
        self._db.close()
        self._db = file

    def _try(self, act: Callable[[], object]) -> None:
        """Do something with the file; if it fails, go on in memory."""
        try:
            act()
        except (sqlite3.Error, OSError) as error:
            warnings.warn(
                f"verdicts are kept in memory only: {self.path}: {error}; {_cure(error)}", CacheWarning, stacklevel=2
            )
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = sqlite3.connect(":memory:", check_same_thread=False)
            self._db.execute(_TABLE)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, dict[str, Any]]:
        """Stored rows for those of `keys` that are known."""
        wanted, found = list(keys), {}

        def look() -> None:
            for start in range(0, len(wanted), _BATCH):
                part = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(part))
                for key, row in self._db.execute(f"SELECT key, row FROM verdicts WHERE key IN ({marks})", part):
                    with contextlib.suppress(ValueError):  # damaged: not known
                        found[bytes(key)] = json.loads(row)

        self._try(look)
        return found

    def put(self, rows: Mapping[bytes, dict[str, Any]]) -> None:
        """Store rows in one transaction; a row that another process stored first stays."""
        items = [(key, json.dumps(row)) for key, row in rows.items()]

        def store() -> None:
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", items)

        file = self._db
        self._try(store)
        if self._db is not file:
            store()

    def close(self) -> None:
        """Close the file (the last one to do so folds the write-ahead log back in)."""
        self._db.close()


def _done(act: Callable[[], object], until: float) -> bool:
    """Whether it could be done; False where others have the file and there is time left. Raises sqlite3.Error."""
    try:
        act()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
            raise
        return False
    return True


def _cure(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return "delete the file"
    return "it is in use, or its disk is full, read-only or without file locks: set CPPO_RUNS to another disk"
