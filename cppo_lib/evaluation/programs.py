"""When are two programs the same, and what are they made of?

Two programs are the same (`program_key`) if they differ in comments, layout, docstrings and the names they choose only:
builtins, methods and constants stay, so `min` and `max` or `[0]` and `[-1]` are different programs. How alike two
programs are is read off their `Features`, see `cppo_lib.evaluation.distances`.

Nothing is parsed here. Programs are text that a model wrote, and a text that crashes a parser must not end a training
run: `cppo_lib.evaluation.syntax` is started as a process for each batch, with limits on time and memory. A program on
which that process dies counts as its words, as one that does not parse does. Why not a test process of the verifier:
parsing runs nothing, so limits are enough; and tables can be made where the verifier's isolation is not to be had.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cppo_lib.errors import CPPOError
from cppo_lib.evaluation import syntax
from cppo_lib.verifier.cores import usable_cores

Hashes = NDArray[np.uint64]
Kernel = Literal["subtrees", "ast", "opcodes"]
KERNELS: tuple[Kernel, ...] = ("subtrees", "ast", "opcodes")
BATCH = 1000
"""Programs that one process is given."""
KEPT = 50_000
"""Programs whose features are remembered; 50,000 of 30 lines take about 150 MB."""
START_S = 60.0
"""Wall seconds that starting a process may take on a busy machine."""
_SCRIPT = Path(syntax.__file__)
_DEATHS = [-getattr(signal, f"SIG{name}") for name in ("PROF", "SEGV", "BUS", "ILL", "FPE", "ABRT", "KILL")]
"""Exit statuses that a program can bring about: no more time, and the ways in which a parser crashes."""
_known: dict[str, Features] = {}


@dataclass(frozen=True, eq=False)
class Features:
    """A program as sets of hashes, each sorted and without repetition; `cppo_lib.evaluation.syntax` says of what."""

    key: str
    subtrees: Hashes
    grams: Hashes
    opcodes: Hashes

    def of(self, kernel: Kernel) -> Hashes:
        """The set that a kernel compares."""
        return {"subtrees": self.subtrees, "ast": self.grams, "opcodes": self.opcodes}[kernel]


def features(programs: Iterable[str]) -> list[Features]:
    """The features of programs, in their order; what was seen before is not parsed again.

    Raises:
        CPPOError: the process that parses does not start or fails by its own fault.
    """
    asked = list(programs)
    fresh = [program for program in dict.fromkeys(asked) if program not in _known]
    found = {program: _known[program] for program in asked if program in _known}
    batches = [fresh[start : start + BATCH] for start in range(0, len(fresh), BATCH)]
    with ThreadPoolExecutor(usable_cores()) as threads:  # each waits for a process
        for part in threads.map(_learn, batches):
            found |= part
    _known.update(found)
    while len(_known) > KEPT:
        del _known[next(iter(_known))]  # the oldest
    return [found[program] for program in asked]


def program_keys(programs: Iterable[str]) -> list[str]:
    """For each program a hash that equal programs share, whatever they call their variables."""
    return [each.key for each in features(programs)]


def program_key(program: str) -> str:
    """`program_keys` of one program; for many, ask at once."""
    return program_keys([program])[0]


def _learn(batch: Sequence[str]) -> dict[str, Features]:
    """Features of a batch. A process that dies has died of the first program that it gave no answer for."""
    found: dict[str, Features] = {}
    while len(found) < len(batch):
        rest = batch[len(found) :]
        answers = _run(rest)
        found |= {program: _read(answer) for program, answer in zip(rest, answers, strict=False)}
        if len(answers) < len(rest):
            found[rest[len(answers)]] = _read(syntax.words(rest[len(answers)]))
    return found


def _run(batch: Sequence[str]) -> list[dict[str, str]]:
    """The answers of one process, as many as it gave."""
    command = [sys.executable, "-I", "-S", str(_SCRIPT)]
    text = "".join(json.dumps(program) + "\n" for program in batch)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace") as process:
        try:
            output, errors = process.communicate(text, timeout=START_S + 2 * syntax.CPU_S * len(batch))
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
    ready, *lines = output.split("\n")[:-1] or [""]  # what follows the last line end is half an answer
    whole = process.returncode == 0 and len(lines) == len(batch)
    if ready != "ready" or not (whole or process.returncode in _DEATHS):
        last = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise CPPOError(f"the process that parses programs failed ({' '.join(command)}): {last}")
    return [json.loads(line) for line in lines]


def _read(answer: dict[str, str]) -> Features:
    sets = {name: np.frombuffer(bytes.fromhex(answer[name]), ">u8") for name in ("subtrees", "grams", "opcodes")}
    return Features(answer["key"], **{name: np.unique(hashes.astype(np.uint64)) for name, hashes in sets.items()})
