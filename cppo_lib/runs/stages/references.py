"""Reference programs: what a data set gives as the solution of a problem, run by the verifier.

It checks data and verifier together. The references of crossroads and HumanEval are right by construction, so one that
is not accepted is an error. Those of other data sets are submissions that a site accepted, and some fail their own
tests: they are counted, which says how far a score can be from 1 for no fault of the model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import Problem
from cppo_lib.errors import DatasetError
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.cores import usable_cores

RIGHT = ("crossroads", "humaneval")
"""Benchmarks whose references are right."""


def has_reference(problem: Problem) -> bool:
    """Whether the data set gives a solution."""
    return problem.source == "crossroads" or "reference" in problem.meta


def reference_program(problem: Problem) -> str:
    """The hidden method's program, or the data set's own solution, see `has_reference`."""
    if problem.source == "crossroads":
        method = crossroads.method_named(crossroads.family_of(problem), problem.meta["hidden_method"])
        assert method is not None  # the problem was made from this method
        return method.program
    return str(problem.meta["reference"])


def check_references(problems: list[Problem], cache: Path) -> dict[str, Any]:
    """How many references were `judged` and `accepted`, and the `failed` ones with `id`, `verdict` and `reason`.

    Raises:
        DatasetError: a reference that is right by construction is not accepted.
    """
    if not problems:
        return {"judged": 0, "accepted": 0, "failed": []}
    # No model trains or generates while data are prepared, so the verifier may use every core.
    with Verifier(workers=usable_cores(), cache=cache) as verifier:
        results = verifier.verify_many([(problem, reference_program(problem)) for problem in problems])
    failed = []
    for problem, result in zip(problems, results, strict=True):
        if not result.passed:
            if problem.source in RIGHT:
                raise DatasetError(
                    f"{problem.source} problem {problem.id!r}: the reference program gets {result.verdict} "
                    f"({result.reason}): mend the data or the limits before training on it"
                )
            failed.append({"id": problem.id, "verdict": result.verdict, "reason": result.reason})
    return {"judged": len(problems), "accepted": len(problems) - len(failed), "failed": failed}
