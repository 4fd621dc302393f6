"""What the audit's rates are, and which verdict follows from them."""

from __future__ import annotations

import pytest
import torch

from cppo_lib.reward.density import BOUNDS, RATES, density, verdict

GOOD = {"read_tuples": 0.99, "j": 0.9, "paid_tuples": 0.4, "paid_problems": 0.8, "mixed_problems": 0.7}


def test_rates_by_hand():
    """Three problems of four tuples: one mixed, one all paid, one all unpaid."""
    r_plan = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    valid = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
    readable = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert density(r_plan, valid, readable) == pytest.approx(
        {
            "paid_tuples": 5 / 12,
            "paid_problems": 2 / 3,
            "mixed_problems": 1 / 3,
            "j": 7 / 12,
            "read_tuples": 11 / 12,
            "reward_variance": (3 / 16) / 3,
        }
    )
    assert {bound.rate for bound in BOUNDS} <= set(RATES)


def test_enough_to_learn_from_is_a_go():
    assert verdict(GOOD) == verdict(GOOD | {"paid_tuples": 0.05, "paid_problems": 0.25, "mixed_problems": 0.10})
    assert verdict(GOOD).word == "go" and verdict(GOOD).reasons == ()


@pytest.mark.parametrize(
    ("rates", "stage"),
    [
        ({"paid_tuples": 0.029}, "easier problems or a stronger solver"),
        ({"paid_problems": 0.09, "paid_tuples": 0.05}, "01_data_prep"),
    ],
)
def test_too_sparse_is_a_no_go_that_says_what_to_do(rates, stage):
    found = verdict(GOOD | rates)
    assert found.word == "no-go" and stage in found.reasons[0]
    assert found.reasons[0].startswith(next(iter(rates)))


@pytest.mark.parametrize(
    ("rates", "stage"),
    [
        ({"read_tuples": 0.94}, "02_planner_sft"),
        ({"j": 0.98}, "02b_gate"),
        ({"j": 0.01}, "02b_gate"),
        ({"paid_tuples": 0.04}, "warm-up"),
        ({"paid_problems": 0.2}, "01_data_prep"),
        ({"mixed_problems": 0.09}, "group_size"),
    ],
)
def test_in_between_is_unsure(rates, stage):
    found = verdict(GOOD | rates)
    assert found.word == "unsure" and len(found.reasons) == 1 and stage in found.reasons[0]


def test_reasons_that_stop_come_first():
    found = verdict(GOOD | {"read_tuples": 0.1, "paid_tuples": 0.0, "paid_problems": 0.0})
    assert [reason.split()[0] for reason in found.reasons] == ["paid_tuples", "paid_problems", "read_tuples"]
