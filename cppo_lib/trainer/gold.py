"""Gold tuples of your own, which planner SFT learns: a line of JSON each.

    problem_id      of a training problem
    problem_text    its statement
    plan_text       the K methods, in either format of `cppo_lib.rollout.plans`

Further keys are allowed and ignored. The authors' 333 gold tuples, made offline with a judge, are not public (Li et al.
2026, authors' README at 8b3f84f7); as there, only positives are learnt, and the loss is on the plan.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from cppo_lib.artefacts import paths
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError
from cppo_lib.reward.gate_records import check_tuple, read_rows
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.trainer.sft_data import SFTRow

KEYS = ("problem_id", "problem_text", "plan_text")


def gold_rows(path: Path, style: PromptStyle, k: int, known: Collection[str]) -> list[SFTRow]:
    """A `plan` row for each tuple of the file, in its order.

    Args:
        k: methods that each plan must list.
        known: ids of the problems that may be learnt from.

    Raises:
        DatasetError: one line that names the file and the line.
    """
    rows = [_row(row, where, style, k, known) for where, row in read_rows(path, "gold")]
    if not rows:
        raise DatasetError(
            f"{paths.show(path)} holds no tuples: it needs a line of JSON for each, with {', '.join(KEYS)}"
        )
    return rows


def _row(row: Any, where: str, style: PromptStyle, k: int, known: Collection[str]) -> SFTRow:
    for key in KEYS:
        if not isinstance(row, dict) or not isinstance(row.get(key), str) or not row[key].strip():
            raise DatasetError(f"{where}: key {key!r} must be text that is not empty; the keys are {', '.join(KEYS)}")
    methods = check_tuple(row, where, k, known)
    problem = Problem(row["problem_id"], "", row["problem_text"], (Test("", ""),))
    return SFTRow("plan", style.planner(problem, k), style.plan(methods), problem)
