"""Comparators: golden vectors measured on LiveCodeBench's official grader."""

from __future__ import annotations

import time

import pytest

from cppo_lib.verifier.compare import call_lcb, lcb
from cppo_lib.verifier.values import Opaque, decode, encode

ACCEPTED = [
    ("3 4", "3 4 "),
    ("3 4\n\n", "3 4"),
    ("\n3 4", "3 4"),
    ("3  4", "3 4"),
    ("1.0", "1"),
    ("1e3", "1000"),
    ("0.1", "0.10"),
    ("1_000", "1000"),
    ("nan", "nan"),
    ("inf", "Infinity"),
    ("+5", "5"),
    ("05", "5"),
    ("-0", "0"),
    ("٣", "3"),
    ("1\r\n2", "1\n2"),
    ("3\x0c4", "3 4"),
    ("", " \n"),
    ("3\n\n4", "3\n\n4"),
]
REJECTED = [
    ("a  b", "a b"),
    ("Yes", "YES"),
    ("1.00000001", "1.0"),
    ("NaN", "nan"),
    ("1 2\n3", "1 2 3"),
    ("3\n4", "3\n\n4"),
    ("x 1.0", "x 1"),
    ("sNaN", "1"),
    ("", "0"),
    ("3", "3\n4"),
    ("3\n4\n5", "3\n4"),
    ("\ud800", "1"),
]
CALLS = [
    ((1, 2), "[1, 2]", True),
    ([1, 2], "[1, 2]", True),
    ([(1, 2)], "[[1, 2]]", False),
    (1, "true", True),
    (2.0, "2", True),
    (0.1 + 0.2, "0.3", False),
    ({1, 2}, "[1, 2]", False),
    ({1: 2}, '{"1": 2}', False),
    ({"1": 2}, '{"1": 2}', True),
    (float("nan"), "NaN", False),
    (None, "null", True),
    ("1", "1", False),
    (10**5000, "1" + "0" * 5000, True),
    (Opaque("generator"), "null", False),
]


@pytest.mark.parametrize(("output", "expected"), ACCEPTED)
def test_lcb_accepts(output: str, expected: str) -> None:
    assert lcb(output, expected)


@pytest.mark.parametrize(("output", "expected"), REJECTED)
def test_lcb_rejects(output: str, expected: str) -> None:
    assert not lcb(output, expected)


@pytest.mark.parametrize(
    "output",
    ["1e999999999", "9" * 1_000_000, "1 " * 200_000, "1e999999999999999999999", "-" * 9999],
    ids=range(5),
)
def test_hostile_output_is_compared_quickly(output: str) -> None:
    start = time.process_time()
    assert not lcb(output, "1")
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(("value", "expected", "same"), CALLS, ids=range(len(CALLS)))
def test_call_lcb(value: object, expected: str, same: bool) -> None:
    assert call_lcb(value, expected) is same


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, -(1 << 70), 2.5, float("inf"), "a\ud800\n", b"\x00", 1 + 2j),
        *((1, (2,)), [1, [2]], {1, 2}, frozenset({(1, 2)}), {(1, 2): [3], "k": None}),
    ],
)
def test_plain_values_survive_the_way_between_processes(value: object) -> None:
    back = decode(encode(value))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("data", [{}, {"x": 1}, {"t": 1}, {"d": [1]}, {"s": [[1]]}, {"b": "zz"}])
def test_nonsense_is_not_decoded(data: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode(data)


def test_an_object_that_equals_everything_becomes_opaque() -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

    assert not call_lcb(decode(encode(Equal())), "1")
    assert not call_lcb(decode(encode([Equal()])), "[1]")
