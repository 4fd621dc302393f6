"""Rewards of tuples against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from cppo_lib.errors import ParameterError
from cppo_lib.reward.rewards import PLANNER_REWARDS, SOLVER_CREDITS, r_out, r_plan, solver_credit

# four tuples of K=4: nothing passes, one attempt, two attempts, all
PASSED = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
FOLLOWED = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)

BY_HAND = {
    "own": [[0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]],
    "tuple": [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
    "marginal": [[0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    "followed": [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 1]],
}


def test_outcome_and_plan_reward() -> None:
    assert r_out(PASSED).tolist() == [0, 1, 1, 1]
    valid = torch.tensor([True, False, True, True])
    assert r_plan(valid, r_out(PASSED)).tolist() == [0, 0, 1, 1]
    assert r_out(PASSED.view(2, 2, 4)).shape == (2, 2)


PLANNER_BY_HAND = {  # J = 1, 0, 1, 1 on the four tuples
    "product": [0, 0, 1, 1],
    "sum": [1, 1, 2, 2],
    "outcome": [0, 1, 1, 1],
    "gate": [1, 0, 1, 1],
}


@pytest.mark.parametrize("name", sorted(PLANNER_REWARDS))
def test_planner_rewards_by_hand(name: str) -> None:
    valid = torch.tensor([True, False, True, True])
    assert r_plan(valid, r_out(PASSED), name).tolist() == PLANNER_BY_HAND[name]


def test_shares_of_tests_are_outcomes_too() -> None:
    """Attempts that pass 1/3, 1, 1/3 and 0 of the tests: the best is 1, the next best 1/3."""
    shares = torch.tensor([[1 / 3, 1.0, 1 / 3, 0.0], [0.5, 0.25, 0.0, 0.0]], dtype=torch.float64)
    assert r_out(shares).tolist() == [1.0, 0.5]
    assert r_plan(torch.tensor([1.0, 0.0]), r_out(shares)).tolist() == [1.0, 0.0]
    expected = torch.tensor([[0, 2 / 3, 0, 0], [0.25, 0, 0, 0]], dtype=torch.float64)
    assert torch.allclose(solver_credit("marginal", shares), expected)
    assert solver_credit("marginal", torch.tensor([[0.5]])).tolist() == [[0.5]]  # no siblings


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_credits_by_hand(name: str) -> None:
    assert solver_credit(name, PASSED, FOLLOWED).tolist() == BY_HAND[name]
    graded = solver_credit(name, PASSED.double(), FOLLOWED)
    assert graded.dtype == torch.float64 and graded.tolist() == BY_HAND[name]


def test_every_credit_has_a_hand_computed_value() -> None:
    assert set(SOLVER_CREDITS) == set(BY_HAND)


def test_marginal_equals_its_definition() -> None:
    for k in range(4):
        rest = PASSED[:, [slot for slot in range(4) if slot != k]]
        assert torch.equal(solver_credit("marginal", PASSED)[:, k], r_out(PASSED) - r_out(rest))


def test_tuple_credit_can_be_written_to() -> None:
    credit = solver_credit("tuple", PASSED)
    credit[1, 0] = 5.0
    assert credit[1].tolist() == [5, 1, 1, 1]


def test_bad_input_is_named() -> None:
    with pytest.raises(ParameterError, match="unknown solver credit 'owm'"):
        solver_credit("owm", PASSED)
    with pytest.raises(ParameterError, match="judges plan-following"):
        solver_credit("followed", PASSED)
    with pytest.raises(ParameterError, match="must match"):
        solver_credit("followed", PASSED, FOLLOWED[:2])
    with pytest.raises(ParameterError, match="must match"):
        r_plan(torch.ones(3), r_out(PASSED))
    with pytest.raises(ParameterError, match="unknown planner reward 'prod'"):
        r_plan(torch.ones(4), r_out(PASSED), "prod")
