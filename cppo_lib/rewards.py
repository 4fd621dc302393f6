"""Rewards of a tuple: outcome R_out, the planner's R_plan = J * R_out, and the solver's credit.

The verifier gives r_k in {0, 1} for each of the K attempts of a tuple, and

    R_out = max_k r_k          did any attempt pass?
    R_plan = J * R_out         credit for the planner only for a valid tuple that leads to success

What the solver is paid for is not stated in the abstract: it is a named choice (`SOLVER_CREDITS`).

    own        r_k. Pays a solver for ignoring its method and writing the popular program, which
               undoes the coordination.
    tuple      R_out for every attempt: pays the failing attempts of a winning tuple too.
    marginal   R_out minus R_out without attempt k: paid only where no sibling passed.
    followed   r_k if the program implements method m_k, else 0: leaving the plan never pays.

A frozen solver needs no credit: give it a solver weight of 0 (`advantages.fold_region_weights`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cppo_lib.errors import ParameterError

Credit = Callable[[Tensor, Tensor | None], Tensor]


def r_out(passed: Tensor) -> Tensor:
    """R_out of each tuple: 1 if any of its K attempts passed. (..., K) bool or 0/1 -> (...)."""
    return _as_float(passed).amax(dim=-1)


def r_plan(j: Tensor, outcome: Tensor) -> Tensor:
    """R_plan = J * R_out of each tuple; `j` and `outcome` (...) of 0/1 or bool -> (...) float."""
    if j.shape != outcome.shape:
        shapes = f"{tuple(j.shape)} and {tuple(outcome.shape)}"
        raise ParameterError(f"gate and outcome have shapes {shapes}; they must match")
    return _as_float(j) * _as_float(outcome)


def own(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """r_k. (..., K) -> (..., K)."""
    return _as_float(passed)


def tuple_credit(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """R_out on each of the K attempts. (..., K) -> (..., K)."""
    return r_out(passed).unsqueeze(-1).expand(passed.shape).clone()


def marginal(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """R_out minus R_out without attempt k: 1 for the only success. (..., K) -> (..., K)."""
    rewards = _as_float(passed)
    return rewards * (rewards.sum(dim=-1, keepdim=True) == 1)


def followed_credit(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """r_k where the program implements its method, else 0. (..., K) and (..., K) -> (..., K).

    Raises:
        ParameterError: no judge said which attempts follow their method.
    """
    if followed is None:
        raise ParameterError("credit 'followed' needs a benchmark that judges plan-following; choose own or marginal")
    return _as_float(passed) * _as_float(followed)


SOLVER_CREDITS: dict[str, Credit] = {
    "own": own,
    "tuple": tuple_credit,
    "marginal": marginal,
    "followed": followed_credit,
}


def solver_credit(name: str, passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """Credit of the K attempts of each tuple by the credit called `name`; (..., K) float.

    Args:
        name: a key of `SOLVER_CREDITS`.
        passed: (..., K) verdicts r_k.
        followed: (..., K), whether attempt k implements its method; None where nobody judged it.

    Raises:
        ParameterError: an unknown name, shapes that differ, or a missing judgement.
    """
    if name not in SOLVER_CREDITS:
        raise ParameterError(f"unknown solver credit {name!r}; known: {', '.join(SOLVER_CREDITS)}")
    if followed is not None and followed.shape != passed.shape:
        shapes = f"{tuple(passed.shape)} and {tuple(followed.shape)}"
        raise ParameterError(f"passed and followed have shapes {shapes}; they must match")
    return SOLVER_CREDITS[name](passed, followed)


def _as_float(values: Tensor) -> Tensor:
    return values if torch.is_floating_point(values) else values.to(torch.get_default_dtype())
