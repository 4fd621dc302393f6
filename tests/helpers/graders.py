"""LiveCodeBench's own grader, the PyPI package `nvidia-livecodebench`, as a second opinion in tests.

It is installed into `graders` inside the environment, off the import path, because its metadata asks for packages that
the suite must not have. Its judging needs none of them.

The grader mends and disables parts of the process it runs in, forks, and leaves processes behind, so `grade` runs it in
a process group of its own: this file, started as a script. Only programs of this repository are ever graded by it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(sys.prefix) / "graders"
CODES = {-2: "WA", -3: "TLE", -4: "RE", -5: "lost"}
"""The grader's error codes. It says RE for a program that does not compile; lost: its own process broke down."""


def livecodebench() -> tuple[ModuleType, ModuleType]:
    """The modules `compute_code_generation_metrics` and `testing_util`; importing them changes this process's settings.

    Raises:
        RuntimeError: the package is not installed.
    """
    _require()
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    from livecodebench.evaluation import compute_code_generation_metrics, testing_util

    return compute_code_generation_metrics, testing_util


def _require() -> None:
    if not (FOLDER / "livecodebench").is_dir():
        raise RuntimeError(f"LiveCodeBench's grader is not in {FOLDER}: run make setup")


def grade(pairs: Sequence[tuple[dict[str, Any], str]], limit_s: int) -> list[str]:
    """Verdicts (AC or one of `CODES`) of at least two (sample, program) pairs.

    Args:
        pairs: a sample has the grader's `inputs`, `outputs` and, for calls, `fn_name`.
        limit_s: wall-clock seconds per test; the grader's timer knows whole seconds only.

    Raises:
        RuntimeError: the package is not installed, or it broke down as a whole.
    """
    _require()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "verdicts.json")
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(answer), str(limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
        )
        try:
            _, errors = process.communicate(json.dumps(pairs), timeout=30 + 2 * limit_s * len(pairs))
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode:
            raise RuntimeError(f"LiveCodeBench's grader broke down: {errors[-2000:]}")
        return list(json.loads(answer.read_text()))


def _main(answer: str, limit_s: str) -> None:
    pairs = json.load(sys.stdin)
    metrics, _ = livecodebench()
    scores, _, metadata = metrics.codegen_metrics(
        [{"input_output": json.dumps(sample)} for sample, _ in pairs],
        [[program] for _, program in pairs],
        k_list=[1],
        num_process_evaluate=1,
        timeout=int(limit_s),
    )
    passed = scores["detail"]["pass@1"]
    codes = [json.loads(data[0]).get("error_code") for data in metadata]
    Path(answer).write_text(json.dumps(["AC" if passed[i] == 1.0 else CODES[code] for i, code in enumerate(codes)]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
