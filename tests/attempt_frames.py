"""Attempt records of small simulated methods, in the schema that evaluation writes.

Each problem hides one of eight methods, drawn from `P`; an attempt writes a program of some method
and passes if it is the hidden one. Independent methods draw theirs from a popularity; coordinated
ones take K distinct methods, more or less often the right ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

P = np.array([0.28, 0.24, 0.20, 0.16, 0.04, 0.03, 0.03, 0.02])
POPULAR = np.array([0.05, 0.03, 0.10, 0.06, 0.36, 0.20, 0.12, 0.08])
PEAKED = np.array([0.93, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01])
EVEN = np.array([0.28, 0.25, 0.22, 0.19, 0.02, 0.02, 0.01, 0.01])
INDEPENDENT = {"direct": POPULAR, "plan_then_solve": POPULAR, "grpo": PEAKED, "pkpo": EVEN}
COORDINATED = {"sft": 0.35, "cppo": 0.92}  # probability that a slot's method is one of the best K
METHODS = ["direct", "plan_then_solve", "sft", "grpo", "pkpo", "cppo"]


def program_of(method: int) -> str:
    return f"values = sorted(map(int, input().split()))\nprint(values[{method}])\n"


def draw_methods(method: str, rng: np.random.Generator, k: int) -> list[int]:
    """The methods that one block of K attempts uses."""
    if method in INDEPENDENT:
        return [int(m) for m in rng.choice(8, size=k, p=INDEPENDENT[method])]
    weights = np.where(
        np.arange(8) < k, COORDINATED[method] / k, (1 - COORDINATED[method]) / (8 - k)
    )
    return [int(m) for m in rng.choice(8, size=k, replace=False, p=weights)]


def simulate(
    method: str, *, seed: int = 0, problems: int = 24, tuples: int = 4, k: int = 4
) -> pd.DataFrame:
    """Attempt records of one method and seed; the problems are the same for every method."""
    world = np.random.default_rng(99)
    hidden = [int(m) for m in world.choice(8, size=problems, p=P)]
    rng = np.random.default_rng([seed, sum(method.encode())])
    rows = []
    for number, right in enumerate(hidden):
        for tuple_index in range(tuples):
            for slot, m in enumerate(draw_methods(method, rng, k)):
                rows.append(_row(method, seed, number, tuple_index, slot, k, m, right))
    return pd.DataFrame(rows)


def _row(
    method: str, seed: int, number: int, tuple_index: int, slot: int, k: int, m: int, right: int
) -> dict[str, object]:
    planned = method in COORDINATED
    wrote = m if (number + tuple_index + slot) % 13 or not planned else right
    return {
        "run_id": f"{method}.s{seed}",
        "profile": "test",
        "benchmark": "crossroads",
        "split": "test",
        "method": method,
        "policy": f"runs/test/{method}",
        "seed": seed,
        "problem_id": f"middle/even/{number:03d}",
        "group": f"middle/{'even' if number % 2 else 'odd'}",
        "tuple_index": tuple_index,
        "slot": slot,
        "k": k,
        "coordinated": planned,
        "plan": f"1. method {m}" if planned else None,
        "valid": True if planned else None,
        "strategy": f"method {m}" if planned else None,
        "program": program_of(wrote),
        "verdict": "AC" if wrote == right else ("WA", "RE", "TLE")[wrote % 3],
        "passed": wrote == right,
        "followed": wrote == m if planned else None,
        "program_method": f"method {wrote}",
        "reason": "",
        "cached": False,
        "planner_tokens": 21 if planned and slot == 0 else 0,
        "solver_tokens": 17,
        "cpu_s": 0.01,
        "wall_s": 0.02,
        "gen_s": 0.05,
    }


def simulate_all(
    *, seeds: tuple[int, ...] = (0,), problems: int = 24, tuples: int = 4
) -> pd.DataFrame:
    """All six methods and the given seeds in one frame."""
    frames = [
        simulate(method, seed=seed, problems=problems, tuples=tuples)
        for method in METHODS
        for seed in seeds
    ]
    return pd.concat(frames, ignore_index=True)


def hand_made(passed: list[list[list[int]]], *, coordinated: bool, seed: int = 0) -> pd.DataFrame:
    """Records with the given verdicts, indexed [problem][tuple][slot]; slot k writes method k."""
    rows = []
    for number, tuples in enumerate(passed):
        for tuple_index, slots in enumerate(tuples):
            for slot, verdict in enumerate(slots):
                row = _row("cppo", seed, number, tuple_index, slot, len(slots), slot, slot)
                row |= {"passed": bool(verdict), "coordinated": coordinated}
                rows.append(row | {"verdict": "AC" if verdict else "WA"})
    return pd.DataFrame(rows)
