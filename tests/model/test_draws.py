"""Random numbers by place: the same everywhere and for ever, uniform, and without a tie between places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cppo_lib.model.decoding import PARTS, uniform


def test_numbers_are_those_of_the_place_whatever_stands_beside_it():
    places = [(0, "HumanEval/3", tuple_index, "program", slot) for tuple_index in range(3) for slot in range(4)]
    numbers = uniform(places, 6)
    assert numbers.shape == (12, 6, PARTS) and numbers.dtype == torch.float64
    assert numbers.unique().numel() == 12 * 6 * PARTS and numbers.min() >= 0 and numbers.max() < 1
    assert torch.equal(uniform(places[5:7], 3), numbers[5:7, :3])  # a limit on tokens cuts, and changes nothing
    assert uniform([], 6).shape == (0, 6, PARTS)


def test_numbers_never_change():
    """Records of long runs hang on them: another Python, numpy or processor gives the same."""
    numbers = uniform([(0, "HumanEval/3", 1, "plan", 2)], 1) * 2**32
    assert numbers.tolist() == [[[162860126, 3103998243, 3477965586, 2759800858]]]


@pytest.mark.parametrize("change", [(1, "p", 0), (0, "q", 0), (0, "p", 1), (0, "p"), ("0", "p", 0), (0, "p", 0, 0)])
def test_another_place_has_other_numbers(change):
    assert not (uniform([(0, "p", 0)], 20) == uniform([change], 20)).any()


def test_numbers_are_uniform_and_independent_along_and_across_places():
    numbers = uniform([(0, "p", number) for number in range(1000)], 40 // PARTS).flatten(1).numpy()
    counts = np.histogram(numbers, bins=50, range=(0, 1))[0]
    assert ((counts - 800) ** 2 / 800).sum() < 95  # chi-squared with 49 degrees of freedom: p of 1e-4
    for one, other in (numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:]):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02  # four deviations
