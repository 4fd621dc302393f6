"""Rewards of a tuple: outcome R_out, the planner's R_plan = J * R_out, and the solver's credit.

The verifier gives r_k in {0, 1} for each of the K attempts of a tuple (or, as an ablation, the share of tests that it
passes), and

    R_out = max_k r_k          did any attempt pass?
    R_plan = J * R_out         credit for the planner only for a valid tuple that leads to success

The other combinations in `PLANNER_REWARDS` are ablations of that product: sum J + R_out, outcome R_out, gate J.

What the solver is paid for is a named choice (`SOLVER_CREDITS`). The abstract does not state it; the authors' code (Li
et al. 2026, at 8e5ea8a4) pays `own`.

    own        r_k. Pays a solver for ignoring its method and writing the popular program, which
               undoes the coordination.
    tuple      R_out for every attempt: pays the failing attempts of a winning tuple too.
    marginal   R_out minus R_out without attempt k: paid only where no sibling does as well.
    followed   r_k if the program implements method m_k, else 0: leaving the plan never pays.

A frozen solver needs no credit: give it a solver weight of 0 (`advantages.row_weights`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from cppo_lib.errors import ParameterError

if TYPE_CHECKING:  # alone: the command line takes the names of rewards and credits from here, and starts without torch
    from torch import Tensor

OutcomeReward = Literal["binary", "fraction"]
"""r_k of an attempt: 1 where all tests passed, or the share of tests passed."""


def r_out(passed: Tensor) -> Tensor:
    """R_out of each tuple: 1 if any of its K attempts passed. (..., K) bool, 0/1 or shares -> (...)."""
    return _as_float(passed).amax(dim=-1)


PLANNER_REWARDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda j, outcome: j * outcome,
    "sum": lambda j, outcome: j + outcome,
    "outcome": lambda j, outcome: outcome,
    "gate": lambda j, outcome: j,
}


def r_plan(j: Tensor, outcome: Tensor, name: str = "product") -> Tensor:
    """R_plan of each tuple, by default J * R_out; `j` (0/1 or bool) and `outcome` (...) -> (...) float.

    Raises:
        ParameterError: a name that is not in `PLANNER_REWARDS`, or shapes that differ.
    """
    if name not in PLANNER_REWARDS:
        raise ParameterError(f"unknown planner reward {name!r}; known: {', '.join(PLANNER_REWARDS)}")
    if j.shape != outcome.shape:
        shapes = f"{tuple(j.shape)} and {tuple(outcome.shape)}"
        raise ParameterError(f"gate and outcome have shapes {shapes}; they must match")
    return PLANNER_REWARDS[name](_as_float(j), _as_float(outcome))


def own(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """r_k. (..., K) -> (..., K)."""
    return _as_float(passed)


def tuple_credit(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """R_out on each of the K attempts. (..., K) -> (..., K)."""
    return r_out(passed).unsqueeze(-1).expand(passed.shape).clone()


def marginal(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """R_out minus R_out without attempt k: what it adds to the best of the others. (..., K) -> (..., K)."""
    rewards = _as_float(passed)
    own_slot = rewards.new_ones(rewards.shape[-1]).diag().bool()
    others = rewards.unsqueeze(-2).masked_fill(own_slot, 0.0).amax(dim=-1)  # without siblings, R_out is 0
    return (rewards - others).clamp(min=0.0)


def followed_credit(passed: Tensor, followed: Tensor | None = None) -> Tensor:
    """r_k where the program implements its method, else 0. (..., K) and (..., K) -> (..., K).

    Raises:
        ParameterError: nobody found out which attempts follow their method.
    """
    if followed is None:
        raise ParameterError("credit 'followed' needs a benchmark that judges plan-following; choose own or marginal")
    return _as_float(passed) * _as_float(followed)


SOLVER_CREDITS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
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
        followed: (..., K), whether attempt k implements its method; None where nobody can tell.

    Raises:
        ParameterError: an unknown name, shapes that differ, or no `followed` where it is needed.
    """
    if name not in SOLVER_CREDITS:
        raise ParameterError(f"unknown solver credit {name!r}; known: {', '.join(SOLVER_CREDITS)}")
    if followed is not None and followed.shape != passed.shape:
        shapes = f"{tuple(passed.shape)} and {tuple(followed.shape)}"
        raise ParameterError(f"passed and followed have shapes {shapes}; they must match")
    return SOLVER_CREDITS[name](passed, followed)


def _as_float(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values * 1.0  # in torch's default type
