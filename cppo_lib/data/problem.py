"""Problems and their tests: the one input model that every benchmark is brought into.

A benchmark's file in `cppo_lib.data.benchmarks` turns its own schema into `Problem`s; everything after that (prompts,
rollouts, verifier, records) sees only what is defined here. A problem that cannot be judged, for example one
without tests, is a `DatasetError` at load time and never a pass.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

from cppo_lib.errors import DatasetError

Mode = Literal["stdio", "call", "assert"]


@dataclass(frozen=True)
class Test:
    """One test of a program.

    In `stdio` mode `input` is the text on standard input and `expected` the text on standard output. In `call` mode
    `input` is a JSON list of arguments and `expected` a JSON value. In `assert` mode `input` is the source of a
    function `check(candidate)` (with the helpers it needs) and `expected` is empty.
    """

    __test__ = False  # not a pytest class

    input: str
    expected: str
    visibility: Literal["public", "hidden"] = "hidden"


@dataclass(frozen=True)
class Problem:
    """One programming problem with its hidden tests.

    Attributes:
        id: unique within its benchmark; `source` names the benchmark.
        statement: what the policy reads (public samples included).
        tests: in the order in which they are run; at least one.
        mode: how a program is run, see `Test`; `fn_name` is the function called in `call` and `assert` mode.
        starter_code: code a completion continues (empty: the completion is a whole program).
        cpu_limit_s, memory_mb: limits per test (CPU seconds, MiB of address space).
        comparator, prelude: names known to `cppo_lib.verifier`.
        reply: what a completion holds: a program, or an assertion whose right side is the answer (output prediction).
        meta: facts about the problem for reports (JSON values only); never used for judging.

    Raises:
        DatasetError: no tests, an empty statement, a missing function name, or a `call` test that is not JSON.
    """

    id: str
    source: str
    statement: str
    tests: tuple[Test, ...]
    mode: Mode = "stdio"
    fn_name: str | None = None
    starter_code: str = ""
    cpu_limit_s: float = 6.0
    memory_mb: int = 1024
    comparator: str = "lcb"
    prelude: str = "lcb"
    reply: Literal["program", "assertion"] = "program"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"{self.source} problem {self.id!r}"
        if not self.tests:
            raise DatasetError(f"{where} has no tests: drop it from the split, it cannot be judged")
        if not self.statement.strip():
            raise DatasetError(f"{where} has an empty statement")
        if self.mode != "stdio" and not self.fn_name:
            raise DatasetError(f"{where} is in {self.mode} mode but names no function (fn_name)")
        if self.mode == "call":
            for number, test in enumerate(self.tests):
                _check_json(test, f"{where}, test {number}")


def _check_json(test: Test, where: str) -> None:
    """Raise DatasetError unless the input is a JSON list and the expected output a JSON value."""
    for name, text, kind in (("input", test.input, list), ("expected", test.expected, object)):
        try:
            value = json.loads(text, parse_int=str)  # integers may be longer than Python reads at once
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: {name} is not JSON ({error})") from None
        if not isinstance(value, kind):
            raise DatasetError(f"{where}: {name} must be a JSON list of arguments, not {type(value).__name__}")


def to_json(problem: Problem) -> str:
    """One line of ASCII that `from_json` reads back to an equal problem.

    Statements hold line separators such as U+2028, at which some readers end a line, and tests may hold half a
    surrogate pair, for which UTF-8 has no bytes.
    """
    return json.dumps(dataclasses.asdict(problem), sort_keys=True)


def from_json(line: str, *, where: str = "problem") -> Problem:
    """Inverse of `to_json`. Raises DatasetError naming `where` and the field."""
    try:
        row = json.loads(line)
        row["tests"] = tuple(Test(**test) for test in row["tests"])
        return Problem(**row)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise DatasetError(f"{where}: not a problem record ({error}); write it again with 01_data_prep") from error


class ProblemFile(Sequence[Problem]):
    """The problems in a file of `to_json` lines, each read when it is asked for: tests can be larger than memory.

    A slice and `chosen` are such sequences of fewer problems, and read nothing.

    Args:
        path: the file; it must stay as it is.
        where: what messages call it.

    Raises:
        DatasetError: a line asked for is no problem, or the file is another one than before; both name the file.
    """

    def __init__(self, path: Path, where: str = "") -> None:
        self._path, self._where = path, where or str(path)
        with path.open("rb") as lines:
            self._state = _state(lines)
            starts = list(itertools.accumulate(map(len, lines), initial=0))
        self._lines: Sequence[tuple[int, int]] = list(enumerate(starts[:-1], start=1))

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Problem]:
        return map(self._read, self._lines)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> ProblemFile: ...
    def __getitem__(self, index: int | slice) -> Problem | ProblemFile:
        return self._of(self._lines[index]) if isinstance(index, slice) else self._read(self._lines[index])

    def chosen(self, indices: Iterable[int]) -> ProblemFile:
        """The problems with these numbers, counted from 0."""
        return self._of([self._lines[index] for index in indices])

    def _of(self, lines: Sequence[tuple[int, int]]) -> ProblemFile:
        made = copy.copy(self)
        made._lines = lines
        return made

    def _read(self, line: tuple[int, int]) -> Problem:
        number, start = line
        with self._path.open("rb") as file:
            if _state(file) != self._state:
                raise DatasetError(f"{self._where} was written anew while it was read: start this step again")
            file.seek(start)
            return from_json(file.readline().decode("ascii", "replace"), where=f"{self._where}:{number}")


def _state(file: BinaryIO) -> tuple[int, ...]:
    state = os.fstat(file.fileno())
    return state.st_ino, state.st_size, state.st_mtime_ns


@dataclass(frozen=True)
class Skipped:
    """A row that a benchmark leaves out: its id, and a reason in one or two words that reports can count."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Source:
    """One file that was read: hub id, folder or package it is from, revision (empty: none), sha256 and rows."""

    origin: str
    file: str
    revision: str
    sha256: str
    rows: int


@dataclass
class LoadReport:
    """What a benchmark's loader tells beside the problems; complete once its last problem has been taken."""

    skipped: list[Skipped] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
