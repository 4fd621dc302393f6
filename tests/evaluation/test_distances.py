"""Similarities of blocks against sets counted by hand, and what makes them kernels and metrics."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.evaluation.distances import block_similarities, mean_distances, program_similarities, text_similarities
from cppo_lib.evaluation.diversity import vendi
from cppo_lib.evaluation.programs import KERNELS, Kernel, features

PROGRAMS = [
    "a = list(map(int, input().split()))\nprint(min(a))",
    "xs = list(map(int, input().split()))\nprint(max(xs))",
    "n = 0\nfor x in input().split():\n    n += int(x)\nprint(n)",
    "the answer is (",
]
PROPERTY = settings(max_examples=100)
SETS = st.lists(st.sets(st.integers(0, 7), max_size=8), min_size=1, max_size=6)


def hashes(*numbers: int) -> np.ndarray:
    return np.array(sorted(numbers), dtype=np.uint64)


def test_blocks_by_hand() -> None:
    """{1,2,3} and {2,3,4} share 2 of 4; the empty set shares nothing with others, everything with itself."""
    sets = [hashes(1, 2, 3), hashes(2, 3, 4), hashes()]
    blocks = block_similarities(sets, [[0, 1], [1, 0], [2, 2], [0, 2], [0, -1], [-1, -1]])
    nan = np.nan
    expected = [[[1, 0.5], [0.5, 1]]] * 2 + [np.ones((2, 2)), np.eye(2), [[1, nan], [nan, nan]], np.full((2, 2), nan)]
    assert np.array_equal(blocks, np.array(expected), equal_nan=True)


def test_no_blocks() -> None:
    assert program_similarities(np.empty((0, 4), dtype=object), "ast").shape == (0, 4, 4)
    assert text_similarities(np.empty((0, 4), dtype=object)).shape == (0, 4, 4)


def of_two(a: str, b: str, kernel: Kernel) -> float:
    left, right = (set(each.of(kernel).tolist()) for each in features([a, b]))
    return len(left & right) / len(left | right)


def test_blocks_equal_pairs() -> None:
    blocks = np.array([PROGRAMS, PROGRAMS[::-1]], dtype=object)
    for kernel in KERNELS:
        expected = [[[of_two(a, b, kernel) for b in block] for a in block] for block in blocks]
        assert np.array_equal(program_similarities(blocks, kernel), expected)


def test_texts_by_hand() -> None:
    """Words are sort, the, list and sort, list: two of three; a null has no similarity."""
    blocks = text_similarities([["Sort the list.", "sort: LIST sort"], ["sort", None]])
    assert blocks[0] == pytest.approx(np.array([[1, 2 / 3], [2 / 3, 1]]))
    assert blocks[1, 0, 0] == 1 and np.isnan(blocks[1]).sum() == 3


def test_mean_distances_by_hand() -> None:
    """Pairs of three at distances 1/2, 1 and 3/4; a single attempt has no pair, a null no distance."""
    block = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]])
    assert mean_distances(block[None]) == pytest.approx(0.75)
    assert np.isnan(mean_distances(np.ones((1, 1, 1))))
    assert np.isnan(mean_distances(np.array([[[1, np.nan], [np.nan, np.nan]]])))


@PROPERTY
@given(SETS)
def test_similarity_is_a_kernel_and_its_complement_a_metric(sets: list[set[int]]) -> None:
    (block,) = block_similarities([hashes(*each) for each in sets], [range(len(sets))])
    assert ((block >= 0) & (block <= 1)).all() and (block == block.T).all() and (block.diagonal() == 1).all()
    assert np.linalg.eigvalsh(block).min() > -1e-9
    for a, b, c in permutations(range(len(sets)), 3):
        assert 1 - block[a, c] <= (1 - block[a, b]) + (1 - block[b, c]) + 1e-12
    for a, left in enumerate(sets):
        assert [block[a, b] == 1 for b in range(len(sets))] == [left == right for right in sets]


@PROPERTY
@given(SETS, st.data())
def test_the_order_of_a_block_means_nothing(sets: list[set[int]], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(sets))))
    first, second = block_similarities([hashes(*each) for each in sets], [range(len(sets)), order])
    assert np.array_equal(second, first[np.ix_(order, order)])
    assert vendi(first) == pytest.approx(float(vendi(second)))
    assert mean_distances(first[None]) == pytest.approx(mean_distances(second[None]), nan_ok=True)
