"""Small programs of the kind that models write, with 20 tests each, in the verifier's form and in LiveCodeBench's.

A task is a Python function here, and its source is the program: `call` mode and LiveCodeBench's `fn_name` call it,
`stdio` mode gets two lines below it that read the arguments and print the value. What the function returns here is what
the tests expect, so every program passes.
"""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cppo_lib.data.problem import Mode, Problem, Test

TESTS = 20
_READ_AND_PRINT = "import sys\nprint({name}(*map(__import__('json').loads, sys.stdin.read().splitlines())))\n"


def count_pairs(numbers: list[int], target: int) -> int:
    seen: dict[int, int] = {}
    pairs = 0
    for number in numbers:
        pairs += seen.get(target - number, 0)
        seen[number] = seen.get(number, 0) + 1
    return pairs


def longest_rise(numbers: list[int]) -> int:
    from bisect import bisect_left

    ends: list[int] = []
    for number in numbers:
        place = bisect_left(ends, number)
        ends[place : place + 1] = [number]
    return len(ends)


def fewest_coins(coins: list[int], total: int) -> int:
    best = [0] + [total + 1] * total
    for amount in range(1, total + 1):
        for coin in coins:
            if coin <= amount:
                best[amount] = min(best[amount], best[amount - coin] + 1)
    return best[total] if best[total] <= total else -1


def islands(grid: list[list[int]]) -> int:
    land = {(i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell}
    count = 0
    while land:
        count += 1
        stack = [land.pop()]
        while stack:
            i, j = stack.pop()
            for place in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if place in land:
                    land.remove(place)
                    stack.append(place)
    return count


def _numbers(random_: random.Random, low: int, high: int) -> list[int]:
    return [random_.randint(low, high) for _ in range(random_.randint(5, 40))]


TASKS: list[tuple[Callable[..., Any], Callable[[random.Random], list[Any]]]] = [
    (count_pairs, lambda r: [_numbers(r, 0, 20), r.randint(0, 40)]),
    (longest_rise, lambda r: [_numbers(r, 0, 99)]),
    (fewest_coins, lambda r: [[1, *r.sample(range(2, 30), 3)], r.randint(0, 60)]),
    (islands, lambda r: [[[r.randint(0, 1) for _ in range(8)] for _ in range(6)]]),
]
"""Each task with a maker of arguments."""


@dataclass(frozen=True)
class Work:
    """One program with the problem it solves; `sample` is the problem as LiveCodeBench's grader reads it."""

    problem: Problem
    program: str
    sample: dict[str, str]


def make(mode: Mode, number: int, tag: str) -> list[Work]:
    """`number` programs in `stdio` or `call` mode; `tag` makes their texts differ from those of other tags."""
    tasks = [_task(mode, *task) for task in TASKS]
    return [
        Work(problem, f"{program}# {tag} {index}\n", sample)
        for index in range(number)
        for problem, program, sample in [tasks[index % len(tasks)]]
    ]


def _task(
    mode: Mode, function: Callable[..., Any], arguments_of: Callable[[random.Random], list[Any]]
) -> tuple[Problem, str, dict[str, str]]:
    name, generator = function.__name__, random.Random(0)
    cases = [arguments_of(generator) for _ in range(TESTS)]
    lines = ["\n".join(map(json.dumps, case)) for case in cases]
    outputs = [json.dumps(function(*case)) for case in cases]
    called = mode == "call"
    inputs = [json.dumps(case) for case in cases] if called else lines
    problem = Problem(
        id=name,
        source="benchmark",
        statement=name,
        tests=tuple(Test(*pair) for pair in zip(inputs, outputs, strict=True)),
        mode=mode,
        fn_name=name if called else None,
    )
    program = inspect.getsource(function) + ("" if called else _READ_AND_PRINT.format(name=name))
    sample = {"inputs": lines, "outputs": outputs} | ({"fn_name": name} if called else {})
    return problem, program, {"input_output": json.dumps(sample)}
