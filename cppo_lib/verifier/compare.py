"""Comparators: pure functions that say whether a program's answer equals the expected one.

`lcb` and `call_lcb` follow LiveCodeBench's official grader to the letter for built-in values; the
golden vectors in `tests/test_compare.py` were measured on it. They run in the parent on captured
bytes and decoded built-in values, never on objects made by a program.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal, DecimalException
from typing import Any

TOKEN_LIMIT = 10_000
"""Longest token read as a number (characters); longer ones must match as text."""


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _decimals(line: str) -> list[Decimal] | None:
    tokens = line.split()
    if any(len(token) > TOKEN_LIMIT for token in tokens):
        return None
    try:
        return [Decimal(token) for token in tokens]
    except (DecimalException, ValueError):
        return None


def _same_numbers(output: str, expected: str) -> bool:
    left, right = _decimals(output), _decimals(expected)
    if left is None or right is None:
        return False
    try:
        return left == right
    except DecimalException:  # a signalling NaN
        return False


def lcb(output: str, expected: str) -> bool:
    """Equal line by line after stripping: the same text, or the same list of decimal numbers."""
    left, right = _lines(output), _lines(expected)
    if len(left) != len(right):
        return False
    return all(a == b or _same_numbers(a, b) for a, b in zip(left, right, strict=True))


def _integer(digits: str) -> int:
    """An integer of any length; `int` itself refuses more than 4300 digits."""
    return int(digits) if len(digits) < 4000 else int(Decimal(digits))


def call_lcb(value: Any, expected: str) -> bool:
    """A returned value equals a JSON value by `==`; a tuple at the top counts as a list."""
    if isinstance(value, tuple):
        value = list(value)
    return bool(value == json.loads(expected, parse_int=_integer))


STDIO: dict[str, Callable[[str, str], bool]] = {"lcb": lcb}
CALL: dict[str, Callable[[Any, str], bool]] = {"lcb": call_lcb, "call_lcb": call_lcb}
