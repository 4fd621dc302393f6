"""Gold tuples of your own, which planner SFT learns: a line of JSON each.

    problem_id      of a training problem
    problem_text    its statement
    plan_text       the K methods, in either format of `cppo_lib.rollout.plans`

Further keys are allowed and ignored. The authors' 333 gold tuples, made offline with a judge, are not public (Li et al.
2026, authors' README at 8b3f84f7); as there, only positives are learnt, and the loss is on the plan.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from cppo_lib.artefacts import paths
from cppo_lib.data.problem import Problem, Test
from cppo_lib.errors import DatasetError
from cppo_lib.rollout.plans import read_either
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
    where = paths.show(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not where a statement has U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where}: cannot be read ({error}): gold must name a JSONL file") from error
    rows = [
        _row(line, f"{where}: line {number}", style, k, known)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise DatasetError(f"{where} holds no tuples: it needs a line of JSON for each, with {', '.join(KEYS)}")
    return rows


def _row(line: str, where: str, style: PromptStyle, k: int, known: Collection[str]) -> SFTRow:
    try:
        given = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where} is not JSON ({error.msg})") from error
    for key in KEYS:
        if not isinstance(given, dict) or not isinstance(given.get(key), str) or not given[key].strip():
            raise DatasetError(f"{where}: key {key!r} must be text that is not empty; the keys are {', '.join(KEYS)}")
    name, text, plan = (given[key] for key in KEYS)
    if name not in known:
        raise DatasetError(
            f"{where}: problem {name!r} is none of the profile's training problems, which alone may be learnt from: "
            "take the line out, or prepare the problem in 01_data_prep"
        )
    methods = read_either(plan)
    if len(methods) != k:
        raise DatasetError(f"{where}: the plan lists {len(methods)} methods, and k is {k}")
    problem = Problem(name, "", text, (Test("", ""),))
    return SFTRow("plan", style.planner(problem, k), style.plan(list(methods)), problem)
