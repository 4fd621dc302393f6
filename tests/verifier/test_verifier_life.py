"""What a verifier leaves behind and what it loses: nothing, whoever is killed, interrupted, full or exhausted (H32)."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from verifier_programs import CASES, DOUBLE, RIGHT, SUM, call, several, stdio
from verifier_yard import children, eventually, missing, processes, resident, temporary_folder

from cppo_lib.data.problem import Problem
from cppo_lib.errors import IsolationError
from cppo_lib.verifier import Verifier, cores, namespaces
from cppo_lib.verifier.cache import CacheWarning
from cppo_lib.verifier.cores import Share
from cppo_lib.verifier.pool import BACKENDS, Zygote
from cppo_lib.verifier.schedule import Schedule

PROGRAMS = 2000
PLACES = [str(Path(__file__).parents[1] / name) for name in ("helpers", "verifier")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for boxes and caches; its name marks the processes that work below it."""
    with temporary_folder() as made:
        yield made


def batch(size: int) -> tuple[list[tuple[Problem, str]], list[str]]:
    """Cheap programs, all different, with one test or three, and the verdict of each."""
    endings = {"AC": "", "WA": " + 1", "RE": " + None", "CE": " +"}
    verdicts = [list(endings)[number * 7 % 11 % 4] for number in range(size)]
    pairs = [
        (several(SUM, 1 + 2 * (number % 2)), f"print(sum(map(int, input().split())){endings[verdict]}) # {number}")
        for number, verdict in enumerate(verdicts)
    ]
    return pairs, verdicts


# Run by another process; prints how many programs have been judged, and at the end its verdicts.
JUDGE = f"""
import json, signal, sys
from pathlib import Path
sys.path[:0] = {PLACES}
from test_verifier_life import batch
from cppo_lib.verifier import Verifier
backend, cache, size, extra = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have started us with it ignored
pairs, _ = batch(size)
pairs = [(problem, program + extra) for problem, program in pairs]
with Verifier(workers=2, cache=cache, backend=backend) as verifier:
    print("layers", json.dumps(verifier.layers), flush=True)
    results = verifier.verify_many(pairs, lambda judged, total: print(judged, flush=True))
print(json.dumps([[result.verdict, result.cached] for result in results]))
"""


class Judge:
    """A process that judges `batch(size)`, and a way to act on it when it has judged so and so many programs."""

    def __init__(self, folder: Path, size: int, backend: str = "zygote", extra: str = "") -> None:
        command = [sys.executable, "-c", JUDGE, backend, str(folder / "cache.sqlite"), str(size), extra]
        environment = {**os.environ, "TMPDIR": str(folder / "boxes")}
        self.errors, self.judged, self.last = folder / "errors", 0, ""
        self.below: set[int] = set()
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)

    def run(self, acts: dict[int, Callable[[Judge], None]]) -> list[tuple[str, bool]]:
        """Read to the end, and act on the way; its verdicts and whether each was cached, empty if it was cut short."""
        todo = sorted(acts)
        with self.process:
            assert self.process.stdout
            for line in self.process.stdout:
                self.last = line
                if line.strip().isdigit():
                    self.judged = int(line)
                while todo and self.judged >= todo[0]:
                    self.below.update(children(self.process.pid))
                    acts[todo.pop(0)](self)
        return [(verdict, cached) for verdict, cached in json.loads(self.last)] if self.last.startswith("[[") else []

    def kill(self) -> None:
        self.process.kill()

    def left(self, folder: Path) -> list[str]:
        """Processes and files that are still there: those that name the folder, and any that was once seen below it."""
        boxes = folder / "boxes"
        return [*processes(str(boxes), pids=self.below), *map(str, boxes.iterdir())]

    def clear(self, folder: Path) -> None:
        """After a kill nobody waits for the rest, but it ends."""
        assert eventually(lambda: not self.left(folder)), self.left(folder)


def kill_one(judge: Judge, wanted: Callable[[int], bool]) -> None:
    """Kill a process below the judge as soon as there is one that is wanted."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        found = [pid for pid in children(judge.process.pid) if wanted(parent_of(pid))]
        if found:
            with contextlib.suppress(ProcessLookupError):
                return os.kill(random.choice(found), signal.SIGKILL)


def kill_worker(judge: Judge) -> None:
    """Kill one of the interpreters that start programs (or bubblewrap around it)."""
    kill_one(judge, lambda parent: parent == judge.process.pid)


def kill_program(judge: Judge) -> None:
    """Kill a process that serves or runs tests."""
    kill_one(judge, lambda parent: parent not in (0, judge.process.pid))


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it has ended, waited for or not (in a container, perhaps nobody waits)."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def busy(pid: int) -> bool:
    """Whether a process has computed for a tenth of a second."""
    try:
        used = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    except OSError:
        return False
    return sum(map(int, used)) >= 0.1 * os.sysconf("SC_CLK_TCK")


def rows(folder: Path) -> int:
    """How many verdicts the cache file holds."""
    with sqlite3.connect(folder / "cache.sqlite") as cache:
        return int(cache.execute("SELECT count(*) FROM verdicts").fetchone()[0])


def left(folder: Path, uids: set[int] | None = None) -> list[str]:
    """Processes and files that are still there."""
    return [*processes(str(folder / "boxes"), uids=uids), *map(str, (folder / "boxes").iterdir())]


# Killed ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    """The verdicts of the batch when nothing happens."""
    pairs, _ = batch(PROGRAMS)
    with Verifier(workers=2) as verifier:
        return [result.verdict for result in verifier.verify_many(pairs)]


def test_an_undisturbed_batch_has_the_verdicts_that_were_meant(undisturbed: list[str]) -> None:
    assert undisturbed == batch(PROGRAMS)[1]


@pytest.mark.parametrize(("backend", "size", "seed"), [("zygote", PROGRAMS, 1), ("bwrap", 600, 2), ("spawn", 40, 3)])
def test_h32_whoever_is_killed_nothing_is_lost(
    folder: Path, undisturbed: list[str], backend: str, size: int, seed: int
) -> None:
    """Workers, program and test processes and, twice, the whole judge are killed at random moments.

    Only a worker that is killed thrice before it was up ends the batch with an error.
    """
    if missing(backend):
        pytest.skip(missing(backend))
    random.seed(seed)
    expected, kept = undisturbed[:size], 0
    for share in (0.4, 0.8):
        judge = Judge(folder, size, backend)
        moments = random.sample(range(kept + 1, int(size * share)), 6)
        acts = dict(zip(moments, [kill_worker, kill_program] * 3, strict=True))
        judge.run({**acts, int(size * share) + random.randrange(size // 20): Judge.kill})
        why = judge.errors.read_text()
        assert judge.process.returncode == -signal.SIGKILL or "IsolationError: the verifier's worker" in why, why
        judge.clear(folder)
        kept, before = rows(folder), kept
        assert before <= kept <= judge.judged + 1
    judge = Judge(folder, size, backend)
    results = judge.run({})
    assert [verdict for verdict, _ in results] == expected, judge.errors.read_text()
    assert sum(cached for _, cached in results) == kept
    assert kept > 0 or size < PROGRAMS, "a small batch may be killed within the second after which verdicts are kept"
    assert not judge.left(folder) and rows(folder) == size


def test_h32_killed_programs_are_judged_again(folder: Path, undisturbed: list[str]) -> None:
    """Many kills without the judge's own: no verdict is wrong, and what was hit twice is our error and not kept."""
    random.seed(4)
    judge = Judge(folder, 600)
    moments = random.sample(range(1, 590), 40)
    results = judge.run(dict.fromkeys(moments, kill_program))
    wrong = {verdict for (verdict, _), meant in zip(results, undisturbed, strict=False) if verdict != meant}
    assert len(results) == 600 and wrong <= {"IE"}, judge.errors.read_text()
    assert rows(folder) == 600 - [verdict for verdict, _ in results].count("IE") >= 590
    assert not judge.left(folder)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tests", [1, 3])
def test_h32_a_killed_process_takes_those_below_with_it(folder: Path, backend: str, tests: int) -> None:
    """Programs that never end: the worker is killed, then what serves or runs the test; no process outlives it."""
    if missing(backend):
        pytest.skip(missing(backend))
    task = several(stdio(cpu=60.0), tests)
    below = 1 if tests == 1 else 2
    with Verifier(workers=1, backend=backend) as verifier, ThreadPoolExecutor(1) as thread:
        worker = len(children(os.getpid()))  # bubblewrap's has three processes
        result = thread.submit(verifier.verify, task, ["while True: pass"])
        for depth in (0, worker):
            assert eventually(lambda: len(found := children(os.getpid())) == worker + below and busy(found[-1]))
            found = children(os.getpid())
            os.kill(found[depth], signal.SIGKILL)
            assert eventually(lambda gone=found[depth:]: not any(map(parent_of, gone))), found
        assert result.result()[0].verdict == "IE"
    assert left(folder) == []


def test_workers_lost_while_one_is_replaced_are_replaced_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both workers are killed, and twice the new one that is just starting."""
    ready, moments = Zygote.wait_ready, [False, False]

    def lost(self: Zygote) -> None:
        if moments:
            moments.pop()
            os.kill(self.process.pid, signal.SIGKILL)
        ready(self)

    with Verifier(workers=2) as verifier:
        for zygote in verifier._pool.zygotes:
            os.kill(zygote.process.pid, signal.SIGKILL)
        monkeypatch.setattr(Zygote, "wait_ready", lost)
        assert [result.verdict for result in verifier.verify(SUM, [RIGHT, "print(7)"])] == ["AC", "WA"]
    assert moments == [] and left(folder) == []


def test_what_a_kill_of_everything_leaves_is_swept_later(folder: Path) -> None:
    """Judge and workers killed at once clean nothing up; the next verifier does, but for boxes in use or young."""
    judge = Judge(folder, 200, extra="\nimport time; time.sleep(0.05)")

    def kill_all(judge: Judge) -> None:
        for pid in [judge.process.pid, *sorted(judge.below)]:
            os.kill(pid, signal.SIGSTOP)
        for pid in [judge.process.pid, *sorted(judge.below)]:
            os.kill(pid, signal.SIGKILL)

    with Verifier(workers=1) as verifier:
        used = Path(verifier._pool.zygotes[0].boxes)
        judge.run({5: kill_all})
        boxes = folder / "boxes"
        lost = [path for path in boxes.iterdir() if path != used]
        assert len(lost) == 2
        hour_ago = time.time() - 3600
        for path in (used, lost[0]):
            os.utime(path, (hour_ago, hour_ago))
        with Verifier(workers=1):
            pass
        assert sorted(boxes.iterdir()) == sorted([used, lost[1]])
        assert verifier.verify(SUM, [RIGHT])[0].verdict == "AC"
        os.utime(lost[1], (hour_ago, hour_ago))
    with Verifier(workers=1):
        pass
    assert left(folder) == []


# Interrupted -------------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", BACKENDS)
def test_interrupting_a_batch_keeps_what_is_judged(folder: Path, backend: str) -> None:
    if missing(backend):
        pytest.skip(missing(backend))
    judge, sent = Judge(folder, 400, backend, extra="\nimport time; time.sleep(0.25)"), []

    def interrupt(judge: Judge) -> None:
        sent.append(time.monotonic())
        judge.process.send_signal(signal.SIGINT)

    results = judge.run({10: interrupt})
    took = time.monotonic() - sent[0]
    assert results == [] and "KeyboardInterrupt" in judge.errors.read_text()
    assert took < 20, f"it took {took:.1f} s to stop"  # all of them take 50 s
    assert not judge.left(folder)
    assert rows(folder) >= judge.judged >= 10


# Left behind -------------------------------------------------------------------------------------
def held() -> tuple[int, list[int], int]:
    """Open descriptors, processes and threads of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd")), children(os.getpid()), threading.active_count()


@pytest.mark.parametrize("backend", ["zygote", "bwrap"])
def test_nothing_is_left_whatever_the_programs_did(folder: Path, backend: str) -> None:
    if missing(backend):
        pytest.skip(missing(backend))
    cases = [case for case in CASES if case.row in ("H05", "H06", "H08", "H17", "H19", "H21", "H23", "H25", "H29")]
    before = held()
    with Verifier(workers=2, backend=backend) as verifier:
        folders = [Path(zygote.boxes) for zygote in verifier._pool.zygotes if zygote.boxes]
        uids = {box.stat().st_uid for folder in folders for box in folder.iterdir()} - {os.getuid()}
        verifier.verify_many([(case.problem, case.program) for case in cases])
    assert left(folder, uids) == []
    assert held() == before


def test_nothing_is_left_of_a_verifier_that_was_never_closed(folder: Path) -> None:
    code = f"""
        import sys
        sys.path[:0] = {PLACES}
        from verifier_programs import RIGHT, SUM
        from cppo_lib.verifier import Verifier
        verifier = Verifier(workers=2)
        print(verifier.verify(SUM, [RIGHT])[0].verdict)
        raise SystemExit(WAY)
    """
    for way in ("0", "1 / 0"):
        environment = {**os.environ, "TMPDIR": str(folder / "boxes")}
        command = [sys.executable, "-c", textwrap.dedent(code).replace("WAY", way)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.stdout == "AC\n" and left(folder) == [], done.stderr


@pytest.mark.parametrize(
    ("bwrap", "why"), [(None, "bubblewrap is not installed"), ("/bin/false", "worker did not start")]
)
def test_nothing_is_left_of_a_worker_that_does_not_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bwrap: str | None, why: str
) -> None:
    monkeypatch.setattr(namespaces, "find_bwrap", lambda: bwrap)
    before = held()
    with pytest.raises(IsolationError, match=why):
        Verifier(workers=2, backend="bwrap")
    assert held() == before and left(folder) == []


# Full, exhausted ---------------------------------------------------------------------------------
def test_h32_a_cache_that_cannot_grow_costs_no_run(folder: Path) -> None:
    """As on a full disk: one warning that names the file, and verdicts are kept in memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    programs = [f"print({number})" for number in range(400)]
    with Verifier(workers=1, cache=folder / "cache.sqlite") as verifier:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40 << 10, hard))
        try:
            with pytest.warns(CacheWarning, match=r"cache\.sqlite.*disk is full") as said:
                verdicts = [result.verdict for result in verifier.verify(SUM, programs)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(said) == 1 and any(result.cached for result in verifier.verify(SUM, programs))
    assert verdicts == ["AC" if number == 6 else "WA" for number in range(400)]
    assert left(folder) == []


FULL = f"""
import os, subprocess, sys, tempfile
sys.path[:0] = {PLACES}
from verifier_programs import RIGHT, SUM, several
from cppo_lib.verifier import Verifier
disk = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=30,mode=755", "none", disk], check=True)
tempfile.tempdir = disk
writes = "open('x', 'w').write('x' * 10**7)\\nprint(6)"
with Verifier(workers=1) as verifier:
    results = [result for task in (SUM, several(SUM, 2)) for result in verifier.verify(task, [RIGHT, writes])]
    print([result.verdict for result in results])
print(os.listdir(disk))
for number in range(40):
    try: open(f"{{disk}}/{{number}}", "w").close()
    except OSError: break
try:
    with Verifier(workers=1) as verifier: print(verifier.verify(SUM, [RIGHT, "print(7)"])[0].verdict)
except OSError as error:
    print(error.strerror)
"""


def test_h32_a_full_disk(folder: Path) -> None:
    disk = folder / "disk"
    disk.mkdir()
    command = [
        "unshare",
        "--mount",
        *([] if os.getuid() == 0 else ["--map-root-user"]),
        sys.executable,
        "-c",
        FULL,
        str(disk),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no `unshare` here to mount a small disk with")
    if "mount" in done.stderr:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.splitlines()[-1]}")
    spoken = ["['AC', 'RE', 'AC', 'RE']", "[]", os.strerror(errno.ENOSPC)]
    assert done.stdout.splitlines() == spoken, done.stderr


def test_h32_descriptors_run_out(folder: Path) -> None:
    """With ever fewer descriptors there are right verdicts, internal errors or an exception; never a wrong AC."""
    tasks = [SUM, several(SUM, 3), call(), DOUBLE]
    right = [RIGHT, RIGHT, "def f(a, b): return a + b", "def f(x): return x * 2"]
    wrong = ["print(7)", "print(7)", "def f(a, b): return a", "def f(x): return x"]
    pairs = [*zip(tasks, right, strict=True), *zip(tasks, wrong, strict=True)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ends = []
    with Verifier(workers=1) as verifier:
        for spare in [*range(0, 24, 2), 40]:
            verifier.verify(SUM, [RIGHT])  # whatever happened before
            before, taken = held()[0], []
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for fd in taken[:spare]:
                os.close(fd)
            try:
                marked = [(problem, f"{program}\n# {spare}") for problem, program in pairs]
                verdicts = [result.verdict for result in verifier.verify_many(marked)]
            except OSError as error:
                verdicts = [error.__class__.__name__]
                assert error.errno == errno.EMFILE
            finally:
                for fd in taken[spare:]:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            ends.append(verdicts)
            assert len(verdicts) == 1 or set(verdicts[:4]) <= {"AC", "IE"} and set(verdicts[4:]) <= {"WA", "IE"}, ends
            verifier.verify(SUM, [RIGHT + "#"])
            assert held()[0] == before, (spare, verdicts)
    assert len(ends[0]) == 1 and ends[-1] == ["AC"] * 4 + ["WA"] * 4, ends
    assert left(folder) == []


# At length ---------------------------------------------------------------------------------------
def test_thousands_of_tests_leave_memory_and_descriptors_flat(folder: Path) -> None:
    echo = stdio(*[(f"{number}\n", f"{number}\n") for number in range(20)])

    def measure(verifier: Verifier) -> tuple[float, float, int, int]:
        worker = verifier._pool.zygotes[0].process.pid
        assert eventually(lambda: children(worker) == []), "a process or a zombie is left"
        return resident(), resident(worker), held()[0], len(os.listdir(f"/proc/{worker}/fd"))

    with Verifier(workers=1) as verifier:
        verifier.verify(echo, [f"print(input()) # warm {number}" for number in range(20)])
        before = measure(verifier)
        results = verifier.verify(echo, [f"print(input()) # {number}" for number in range(150)])
        after = measure(verifier)
    assert sum(result.n_passed for result in results) == 3000
    assert after[0] - before[0] < 20 and after[1] - before[1] < 20, (before, after)
    assert after[2:] == before[2:]


# Side by side ------------------------------------------------------------------------------------
HOLD = """
import sys, time
from cppo_lib.verifier.cores import Share
with Share(8):
    print(1, flush=True)
    time.sleep(99)
"""


def test_verifiers_that_judge_at_once_share_the_cores_and_a_kill_gives_them_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "_NAME", f"cppo-test-{os.getpid()}-")
    monkeypatch.setattr(cores, "_COUNT_S", 0.0)
    monkeypatch.setattr(cores, "usable_cores", lambda: 8)
    named = HOLD.replace(
        "import Share", f"import Share\nfrom cppo_lib.verifier import cores\ncores._NAME = {cores._NAME!r}", 1
    )
    with Share(7) as mine:
        assert mine.workers() == 7 and not mine.limited
        with Share(7) as other, Share(2) as third:
            assert [each.workers() for each in (mine, other, third)] == [2, 2, 2]
        others = [subprocess.Popen([sys.executable, "-c", named], stdout=subprocess.PIPE) for _ in range(9)]
        for process in others:
            assert process.stdout and process.stdout.readline()
        assert mine.workers() == 1 and mine.limited
        for process in others:
            with process:
                process.kill()
        assert eventually(lambda: mine.workers() == 7)


def test_a_batch_keeps_to_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two verifiers of two workers each on two cores: while both judge, each has one program under way."""
    monkeypatch.setattr(cores, "_NAME", f"cppo-test-{os.getpid()}-")
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    seen: list[int] = []
    start = Schedule._start

    def counting(self: Schedule, *arguments: Any) -> None:
        start(self, *arguments)
        seen.append(len(self.active))

    monkeypatch.setattr(Schedule, "_start", counting)
    with Verifier(workers=2) as alone:
        seen.clear()
        alone.verify(SUM, [f"print({number})" for number in range(6)])
        assert max(seen) == 2
        with Share(2):
            seen.clear()
            alone.verify(SUM, [f"print({number} + 10)" for number in range(6)])
            assert set(seen) == {1}
