"""The hostile suite: every row of programs that try to cheat, to escape or to do harm, on every back-end.

A row's programs and verdicts stand in `verifier_programs`; the tests here add what else must hold. Each row is judged
with one test (compiled and run in one process) and with several (a process that forks one for each test), and after
each the yard checks that nothing runs any more, that the workers live, that no file was touched and that the next
programs are judged rightly. Row H32, killed processes and full disks, is in `test_verifier_life`; the vectors of H26
are in `test_compare`, the malformed data sets of H31 in the tests of each benchmark.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_verifier import ENDINGS, IDIOMS
from verifier_programs import RIGHT, ROOMY, SHORT, SUM, Case, call, row, several, stdio
from verifier_yard import CANARY, Yard, flat_memory, missing, temporary_folder, watching

from cppo_lib.data.problem import Problem
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Result, Verifier
from cppo_lib.verifier.attempt import Attempt
from cppo_lib.verifier.pool import BACKENDS

WORKERS = 2
both = pytest.mark.parametrize("tests", [1, 3], ids=["one test", "several tests"])


@pytest.fixture(scope="module", params=BACKENDS)
def yard(request: pytest.FixtureRequest) -> Iterator[Yard]:
    if reason := missing(request.param):
        pytest.skip(reason)
    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPPO_CANARY", CANARY)
        made = Yard(folder, request.param, WORKERS)
        yield made
        made.close()


def judge(yard: Yard, name: str, tests: int) -> dict[str, Result]:
    """Judge a row and ordinary programs beside it, and look after it."""
    results = yard.judge(row(name) + row("plain"), tests)
    yard.check()
    return results


# Time --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def sleepers() -> dict[tuple[str, str, int], Result]:
    """Programs that only wall time stops, each in a verifier of its own and all at once, since they take seconds."""
    programs = {
        "sleeps": "import time\ntime.sleep(100)",
        "stops": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    }

    def run(key: tuple[str, str, int]) -> Result:
        backend, name, tests = key
        with Verifier(workers=1, backend=backend) as verifier:
            start = time.monotonic()
            result = verifier.verify(several(stdio(cpu=0.05), tests), [programs[name]])[0]
            assert time.monotonic() - start < 60, "it was not stopped after twice 2.1 s, also on a busy machine"
            assert verifier.verify(SUM, [RIGHT])[0].passed, "the worker is not free"
        return result

    keys = [
        (backend, name, tests) for backend in BACKENDS if not missing(backend) for name in programs for tests in (1, 3)
    ]
    with ThreadPoolExecutor(len(keys)) as threads:
        return dict(zip(keys, threads.map(run, keys), strict=True))


@both
def test_h01_busy_loop(yard: Yard, tests: int) -> None:
    spent = [result.cpu_s for name, result in judge(yard, "H01", tests).items() if "TLE" in name]
    assert SHORT.cpu_limit_s < min(spent) < SHORT.cpu_limit_s + 0.3  # the other may have been watched late
    assert max(spent) < SHORT.cpu_limit_s + 2  # where the kernel itself ends it


@both
@pytest.mark.parametrize("backend", BACKENDS)
def test_h02_sleep(sleepers: dict[tuple[str, str, int], Result], backend: str, tests: int) -> None:
    if missing(backend):
        pytest.skip(missing(backend))
    result = sleepers[backend, "sleeps", tests]
    assert (result.verdict, result.reason) == ("TLE", "wall time limit exceeded")


@both
def test_h03_ignores_every_signal(yard: Yard, tests: int) -> None:
    judge(yard, "H03", tests)


@both
def test_h04_disarms_timers(yard: Yard, tests: int) -> None:
    judge(yard, "H04", tests)


# Processes, memory, output -----------------------------------------------------------------------
@both
def test_h05_fork_bombs(yard: Yard, tests: int) -> None:
    with watching(yard.programs) as peak:
        judge(yard, "H05", tests)  # none of them is TLE
    assert peak[0] <= 2 * 2 * WORKERS, "more than a process for the program and one for its test in each slot"


@both
def test_h06_daemons(yard: Yard, tests: int) -> None:
    judge(yard, "H06", tests)
    time.sleep(0.3)  # longer than a daemon would wait before it writes
    yard.check()


@both
def test_h07_memory_bombs(yard: Yard, tests: int) -> None:
    with flat_memory(32):
        judge(yard, "H07", tests)


@both
def test_h08_threads(yard: Yard, tests: int) -> None:
    judge(yard, "H08", tests)


MANY = """
import threading, time
def start(): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
try:
    while True: start()
except RuntimeError: time.sleep(0.6)
print(6)
"""
TEN = """
import threading, time
def start(): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
time.sleep(0.3)
for _ in range(10): start()
print(6)
"""


def test_h08_threads_of_neighbours_do_not_count(yard: Yard) -> None:
    results = yard.verifier.verify(ROOMY, [f"{program} #{number}" for number, program in enumerate([MANY, TEN] * 2)])
    assert [result.verdict for result in results] == ["AC"] * 4, results


@both
def test_h09_output_bombs(yard: Yard, tests: int) -> None:
    with flat_memory(32):
        judge(yard, "H09", tests)


@both
def test_h10_much_output(yard: Yard, tests: int) -> None:
    judge(yard, "H10", tests)


@both
def test_h11_odd_reading(yard: Yard, tests: int) -> None:
    judge(yard, "H11", tests)


@both
def test_h12_every_way_to_read_and_write(yard: Yard, tests: int) -> None:
    programs = {name: text + "\nprint(sum(map(int, a.split())))" for name, text in IDIOMS.items()}
    programs |= {name: "s = sum(map(int, input().split()))\n" + text for name, text in ENDINGS.items()}
    yard.judge([Case("H12", name, text, "AC", ROOMY) for name, text in programs.items()], tests)
    yard.check()


@both
@pytest.mark.parametrize("name", ["H13", "H14", "H16"])
def test_h13_h14_h16_ends(yard: Yard, name: str, tests: int) -> None:
    judge(yard, name, tests)


@both
def test_h15_bad_ends_after_right_output(yard: Yard, tests: int) -> None:
    results = judge(yard, "H15", tests)
    signals = {name.split()[0]: result.reason for name, result in results.items() if name.startswith("SIG")}
    assert signals == {name: f"killed by {name}" for name in signals} and signals


# Forged verdicts ---------------------------------------------------------------------------------
@both
@pytest.mark.parametrize("name", ["H17", "H18", "H19"])
def test_h17_h18_h19_forged_verdicts_and_values(yard: Yard, name: str, tests: int) -> None:
    with flat_memory(64):
        judge(yard, name, tests)


SPY = """
import ctypes, gc, os
key, found, parent = b"canary-" + b"5Kq7", [], os.getppid()
paths = [f"/proc/{pid}/{name}" for pid in ("self", parent, 1) for name in ("environ", "cmdline", "mem", "maps")]
paths += [f"/proc/{parent}/fd/{n}" for n in range(32)] + [f"/proc/self/fd/{n}" for n in range(32)]
paths += ["@HOME@/" + name for name in ("data.jsonl", "cache.sqlite", "keys/id", "deep/er/file")]
for path in paths:
    try: found.append(open(path, "rb").read(10**5))
    except (OSError, ValueError): pass
for fd in range(64):
    try: found.append(os.pread(fd, 10**5, 0))
    except OSError: pass
local, remote = (ctypes.c_size_t * 2)(id(bytearray(4096)), 4096), (ctypes.c_size_t * 2)(id(found), 4096)
read = ctypes.CDLL(None).process_vm_readv(parent, local, 1, remote, 1, 0)
texts = [t for o in gc.get_objects() for t in gc.get_referents(o) if isinstance(t, (str, bytes))]
texts = list(os.environb.values()) + [t.encode(errors="replace") if isinstance(t, str) else t for t in texts]
os.write(1, b"spied %d " % read + b" ".join(t for t in texts + found if key in t and len(t) > 30))
"""


@both
def test_h20_reads_what_it_must_not(yard: Yard, tests: int) -> None:
    judge(yard, "H20", tests)
    # the first two tests pass, so that the next ones are sent ahead; the right program has left its own traces before
    problem = stdio(
        *[("", "ok")] * (2 * (tests > 1)), ("now", CANARY), *[(CANARY, CANARY)] * (2 * (tests > 1)), cpu=3.0
    )
    right = f"import sys\nprint('{CANARY}' if sys.stdin.read() else 'ok')"
    assert yard.verifier.verify(problem, [right])[0].passed
    spoken = yard.output("import sys\nif not sys.stdin.read(): print('ok'), exit()\n" + SPY, problem)
    assert spoken.strip() == "spied -1"


@both
def test_h21_deletes_and_overwrites(yard: Yard, tests: int) -> None:
    library = Path(os.__file__)
    before = library.stat().st_mtime_ns, library.stat().st_size
    judge(yard, "H21", tests)
    assert (library.stat().st_mtime_ns, library.stat().st_size) == before
    assert not (library.parent / "cppo_canary.py").exists() and not Path("/tmp/cppo-canary").exists()


CALLER = """
import ctypes, socket
kinds = [(f, t) for f in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) for t in (1, 2, 5)]
sockets = []
for family, kind in kinds:
    for make in (socket.socket, socket.socketpair):
        try: made = make(family, kind)
        except (OSError, ValueError): continue
        sockets += made if isinstance(made, tuple) else [made]
sockets += [socket.socket(fileno=fd) for fd in range(3, 64) if not ctypes.CDLL(None).listen(fd, 1)]
for one in sockets:
    for address in ADDRESSES:
        for act in (lambda: one.connect(address), lambda: one.sendto(b"leak", address), lambda: one.send(b"leak")):
            try: act()
            except (OSError, TypeError, ValueError): pass
print(len(sockets))
"""


@contextlib.contextmanager
def listeners(folder: Path) -> Iterator[tuple[list[socket.socket], list[object]]]:
    """Open sockets of every kind that anyone may write to, and their addresses."""
    made, addresses = [], []
    places = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_INET6, ("::1", 0)),
        (socket.AF_UNIX, ""),
        (socket.AF_UNIX, "\0"),
    ]
    try:
        for family, place in places:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                path = folder / f"{len(made)}.{time.monotonic_ns()}.socket"
                one = socket.socket(family, kind)
                made.append(one)
                one.setblocking(False)
                try:
                    one.bind(place if family != socket.AF_UNIX else f"\0{path}" if place else str(path))
                except OSError:
                    assert family == socket.AF_INET6, "only the sixth protocol may be missing"
                    continue
                if path.exists():
                    path.chmod(0o777)
                if kind == socket.SOCK_STREAM:
                    one.listen()
                addresses.append(one.getsockname())
        yield made, addresses
    finally:
        for one in made:
            one.close()


@both
def test_h22_network(yard: Yard, tests: int) -> None:
    judge(yard, "H22", tests)
    with listeners(yard.folder) as (made, addresses):
        assert len(addresses) >= 6
        spoken = yard.output(CALLER.replace("ADDRESSES", repr(addresses)), several(ROOMY, tests))
        assert spoken == "2\n", "it must get nothing but one pair of streams"
        for one in made:
            with pytest.raises(OSError):
                one.accept() if one.type == socket.SOCK_STREAM else one.recv(9)


@both
def test_h23_signals_others(yard: Yard, tests: int) -> None:
    judge(yard, "H23", tests)


@both
@pytest.mark.parametrize("backend", BACKENDS)
def test_h23_stops_itself(sleepers: dict[tuple[str, str, int], Result], backend: str, tests: int) -> None:
    if missing(backend):
        pytest.skip(missing(backend))
    assert sleepers[backend, "stops", tests].verdict == "TLE"


# The interpreter, the disk, the text -------------------------------------------------------------
@both
def test_h24_deep_recursion(yard: Yard, tests: int) -> None:
    judge(yard, "H24", tests)


@both
def test_h25_fills_the_disk(yard: Yard, tests: int) -> None:
    def used() -> float:
        files = [path for box in yard.boxes() for path in box.iterdir()]
        return sum(path.lstat().st_blocks * 512 for path in files) / (1 << 20)

    with watching(used) as peak:
        judge(yard, "H25", tests)
    assert peak[0] < 3 * 64 * WORKERS, "the quota of a box is looked after every 20 ms"


@both
def test_h26_odd_bytes(yard: Yard, tests: int) -> None:
    start = time.process_time()
    judge(yard, "H26", tests)
    assert time.process_time() - start < 0.1 * len(row("H26")) * tests + 0.5


@both
def test_h27_malformed_source(yard: Yard, tests: int) -> None:
    judge(yard, "H27", tests)


@both
def test_h28_imports(yard: Yard, tests: int) -> None:
    judge(yard, "H28", tests)


@both
def test_h29_poison(yard: Yard, tests: int) -> None:
    """Neither the next program nor the next test of the same one sees anything of a poisonous program."""
    cases = [case._replace(program=f"{case.program}#{number}") for number in range(6) for case in row("H29")]
    yard.judge(cases, tests)
    yard.check()


def test_h30_near_the_limit(yard: Yard) -> None:
    """Twenty times just under the limit and twenty times just over: stable, because the latter are run again alone."""
    times = 20 if yard.backend != "spawn" else 5
    work = "import time\nwhile time.process_time() < {}: pass\nprint(6) #{}"
    under = [Attempt(SHORT, work.format(0.07, number)) for number in range(times)]
    over = [Attempt(SHORT, work.format(0.125, number)) for number in range(times)]
    yard.verifier._execute([*under, *over])
    assert [attempt.finding.verdict for attempt in under] == ["AC"] * times, [attempt.finding for attempt in under]
    assert [attempt.finding.verdict for attempt in over] == ["TLE"] * times, [attempt.finding for attempt in over]
    assert all(attempt.alone for attempt in over if not attempt.finding.firm) and not all(a.finding.firm for a in over)


def test_h31_broken_tests_cannot_be_made() -> None:
    with pytest.raises(DatasetError, match="no tests"):
        Problem("p", "test", "Print the sum.", ())
    for given, expected in (("[1, 2]", "three"), ("[1, 2", "3"), ("1", "3"), ("[1, 2]", "")):
        with pytest.raises(DatasetError, match="JSON"):
            call((given, expected))
