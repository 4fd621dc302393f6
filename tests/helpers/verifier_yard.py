"""A verifier in surroundings that show what a program did to them: the side conditions of the hostile suite."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from verifier_programs import RIGHT, SUM, Case, row, several

from cppo_lib.data.problem import Problem
from cppo_lib.errors import IsolationError
from cppo_lib.verifier import Result, Verifier, namespaces
from cppo_lib.verifier.attempt import Attempt
from cppo_lib.verifier.child import isolation, syscalls

CANARY = "canary-5Kq7-" + "0451" * 6
"""Text that stands in every file, variable and expected output that no program may see."""


@functools.cache
def missing(backend: str) -> str:
    """Why a back-end cannot be used here, empty if it can."""
    try:
        with Verifier(workers=1, backend=backend):
            return ""
    except IsolationError as error:
        return f"backend {backend}: layer missing - skipped ({error})"


def children(pid: int) -> list[int]:
    """Process ids of all descendants, nearest first; empty when the process has gone."""
    try:
        tasks = [Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task")]
        found = [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []
    return found + [below for child in found for below in children(child)]


def processes(mark: str, *, uids: set[int] | None = None, pids: set[int] | None = None) -> list[str]:
    """A verifier's processes: those that name `mark` in their command line or work below it, run as one of `uids`, or
    are one of `pids` still."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = ""
            with contextlib.suppress(PermissionError):
                where = os.readlink(entry / "cwd")
            still = int(entry.name) in (pids or ()) and "zygote.py" in command
            if still or mark in command or where.startswith(mark) or entry.stat().st_uid in (uids or ()):
                found.append(f"{entry.name} {command}")
    return found


def resident(pid: int | str = "self", field: str = "VmRSS") -> float:
    """Resident memory of a process now (or at its peak: `VmHWM`), in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def eventually(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether something becomes true within some seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that any user may enter; boxes are made in it as long as it is there."""
    folder, before = Path(tempfile.mkdtemp(prefix="cppo-yard-")), tempfile.tempdir
    folder.chmod(0o755)
    (folder / "boxes").mkdir()
    tempfile.tempdir = str(folder / "boxes")
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder)


class Yard:
    """A verifier, and files that only its isolation layers protect: any user may read and write them."""

    def __init__(self, folder: Path, backend: str, workers: int) -> None:
        self.folder, self.backend, self.home = folder, backend, folder / "home"
        for name in ("data.jsonl", "cache.sqlite", "keys/id", "deep/er/file"):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(CANARY)
            path.chmod(0o666)
        for path in [self.home, *(path for path in self.home.rglob("*") if path.is_dir())]:
            path.chmod(0o777)
        self._files = self._snapshot()
        self.verifier = Verifier(workers=workers, backend=backend)
        self.judge(row("plain"))
        self._zygotes = self.zygotes()

    def _snapshot(self) -> dict[str, object]:
        return {
            str(path): (path.read_text() if path.is_file() else "", path.stat().st_mode, path.stat().st_mtime_ns)
            for path in [self.home, *self.home.rglob("*")]
        }

    def zygotes(self) -> set[int]:
        """Process ids of the workers."""
        return {zygote.process.pid for zygote in self.verifier._pool.zygotes}

    def programs(self) -> int:
        """How many processes there are below the workers, not counting those that bubblewrap needs for itself."""
        below = sum(len(children(zygote)) for zygote in self.zygotes())
        return below - (2 * len(self.zygotes()) if self.backend == "bwrap" else 0)

    def boxes(self) -> list[Path]:
        """The folders that programs work in; bubblewrap's are in its own memory, where only root may look."""
        if self.backend != "bwrap":
            return [box for zygote in self.verifier._pool.zygotes for box in Path(zygote.boxes).iterdir()]
        if os.geteuid() != 0:
            return []
        inner = [children(zygote)[1] for zygote in self.zygotes()]
        return [box for pid in inner for box in Path(f"/proc/{pid}/root{namespaces.BOXES}").iterdir()]

    def uids(self) -> set[int]:
        """The users of the boxes, if they are not the user of this process."""
        return {box.stat().st_uid for box in self.boxes()} - {os.getuid()}

    def judge(self, cases: list[Case], tests: int = 1) -> dict[str, Result]:
        """Judge cases, each problem's tests `tests` times over; all verdicts must be as written there.

        The back-end spawn, which takes a fifth of a second for each program, takes half of them with one test and the
        others with several.
        """
        listed = cases[tests > 1 :: 2] if self.backend == "spawn" else cases
        pairs = [(several(case.problem, tests), case.program.replace("@HOME@", str(self.home))) for case in listed]
        results = self.verifier.verify_many(pairs)
        names = [f"{case.name} ({case.verdict})" for case in listed]
        wrong = {
            name: f"{result.verdict}: {result.reason}"
            for name, case, result in zip(names, listed, results, strict=True)
            if result.verdict != case.verdict or result.passed != (result.n_passed == result.n_tests)
        }
        assert not wrong, wrong
        return dict(zip(names, results, strict=True))

    def output(self, program: str, problem: Problem = SUM) -> str:
        """What a program writes in its last test."""
        attempt = Attempt(problem, program.replace("@HOME@", str(self.home)))
        attempt.capture = True
        self.verifier._execute([attempt])
        assert attempt.finding.verdict in ("AC", "WA"), attempt.finding
        return attempt.output

    def check(self) -> None:
        """Nothing runs any more, the workers and all files are as before, and the next program is judged rightly."""
        assert eventually(lambda: self.programs() == 0), processes(str(self.folder))
        if self.backend != "spawn":
            assert self.zygotes() == self._zygotes
        assert {box.name for box in self.boxes()} <= {"0", "1"} and not any(any(box.iterdir()) for box in self.boxes())
        assert self._snapshot() == self._files
        if self.backend != "spawn":  # where the next program has an interpreter of its own anyway
            fresh = f"#{time.monotonic()}"
            known = self.verifier.verify(SUM, [RIGHT + fresh, "print(7)" + fresh])
            assert [result.verdict for result in known] == ["AC", "WA"]

    def close(self) -> None:
        """End the verifier; no process and no file may be left."""
        uids = self.uids() if self.backend != "bwrap" else set()
        self.verifier.close()
        assert processes(str(self.folder), uids=uids) == []
        assert list((self.folder / "boxes").iterdir()) == []


def forbid_locks(code: int) -> None:
    """From now on every file lock fails with this error in this process, as where the file system knows none."""
    _, column = syscalls._architecture()
    refuse, permit, number = syscalls._refuse(code), syscalls._PERMIT, (73, 32)[column]  # flock
    steps = [(syscalls._LOAD, 0, 0, syscalls._NUMBER), (syscalls._JUMP_EQUAL, 0, 1, number), refuse]
    steps += [(syscalls._JUMP_EQUAL, 0, 4, syscalls._FCNTL[column]), (syscalls._LOAD, 0, 0, syscalls._ARGUMENTS + 8)]
    steps += [(syscalls._JUMP_EQUAL, 1, 0, fcntl.F_SETLK), (syscalls._JUMP_EQUAL, 0, 1, fcntl.F_SETLKW), refuse, permit]
    isolation._prctl(isolation._PR_SET_NO_NEW_PRIVS, 1)
    isolation._install(syscalls.pack(steps))


@contextlib.contextmanager
def watching(measure: Callable[[], float]) -> Iterator[list[float]]:
    """The largest value that `measure` has while the block runs, in a list of one."""
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.004):
            with contextlib.suppress(OSError):
                peak[0] = max(peak[0], measure())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def flat_memory(most: float) -> Iterator[None]:
    """The block must not take this process's resident memory more than `most` MiB above what it is now."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = resident()
    yield
    assert resident(field="VmHWM") < before + most, "the parent's memory grew"
