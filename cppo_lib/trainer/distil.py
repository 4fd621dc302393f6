"""Self-distillation: the tuples and programs of a model that worked become its own fine-tuning data.

An evaluation of the training split (`04_evaluation`, procedure `tuple`) samples tuples of K methods and a program for
each, and the verifier judges them. What is kept is what CPPO's reward pays, R_plan = J * R_out = 1: tuples that pass
the gate and have an accepted attempt. Each gives one `plan` row and a `solver` row for every accepted program, so that
the solver, which shares the planner's weights, practises what it could do already. The abstract does not say where the
SFT tuples come from; this is our default (rejection sampling, as in STaR, Zelikman et al. 2022).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cppo_lib.artefacts import paths
from cppo_lib.data.problem import Problem
from cppo_lib.errors import DatasetError
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.trainer.sft_rows import SFTRow


def records_file(cfg: PlannerSFT) -> Path:
    """The attempt records that `distil_from` names. Raises MissingArtefactError before they are made."""
    name = paths.records_name(cfg.benchmark, "train", str(cfg.distil_from), cfg.seed)
    path = paths.runs_root() / cfg.profile / "04_evaluation" / f"{name}.parquet"
    return paths.require(path, notebook="04_evaluation")


def distilled_rows(attempts: pd.DataFrame, problems: Sequence[Problem], style: PromptStyle) -> list[SFTRow]:
    """Supervised rows from attempt records, in their order and without repeats.

    Args:
        attempts: records of one method with tuples; columns as in `cppo_lib.evaluation.records`.
        problems: the problems that were attempted.
        style: renders the prompts and the replies.

    Raises:
        DatasetError: no tuple passed the gate and a test, or a recorded problem is not among `problems`.
    """
    known = {problem.id: index for index, problem in enumerate(problems)}
    tuples = attempts.groupby(["problem_id", "tuple_index"], sort=False)
    rows: dict[SFTRow, None] = {}
    for _, slots in tuples:
        name = str(slots["problem_id"].iloc[0])
        if name not in known:
            raise DatasetError(f"records hold problem {name!r}, which is not in the training split: evaluate it again")
        if not (slots["valid"].fillna(False).all() and slots["passed"].any()):
            continue
        problem, slots = _light(problems[known[name]]), slots.sort_values("slot")
        plan = style.plan(slots["strategy"].tolist())
        rows[SFTRow("plan", style.planner(problem, len(slots)), plan, problem)] = None
        for _, slot in slots[slots["passed"]].iterrows():
            reply = style.reply(problem, slot["program"])
            rows[SFTRow("solver", style.solver(problem, slot["strategy"]), reply, problem)] = None
    if not rows:
        raise DatasetError(
            f"none of {len(tuples)} tuples passed the gate and a test, so there is nothing to learn from: evaluate "
            "more problems or tuples, easier problems, or a stronger model"
        )
    return list(rows)


def _light(problem: Problem) -> Problem:
    """Without all but one of its tests: rows are kept, and a split's tests may be larger than memory."""
    return dataclasses.replace(problem, tests=problem.tests[:1])
