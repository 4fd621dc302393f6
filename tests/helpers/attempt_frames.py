"""Attempt records of small simulated methods, in the schema that evaluation writes.

Problems go round the contexts of crossroads; each hides one of eight methods, drawn from `P` (ranks
by p). An attempt writes the program of some method and passes if it is the hidden one. Independent
methods draw theirs from a popularity; coordinated ones take K distinct methods, more or less often
the right ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cppo_lib.artefacts import notes, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import Method
from cppo_lib.report.results import Results

P = np.array([0.28, 0.24, 0.20, 0.16, 0.04, 0.03, 0.03, 0.02])
POPULAR = np.array([0.05, 0.03, 0.10, 0.06, 0.36, 0.20, 0.12, 0.08])
PEAKED = np.array([0.93, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01])
EVEN = np.array([0.28, 0.25, 0.22, 0.19, 0.02, 0.02, 0.01, 0.01])
INDEPENDENT = {"direct": POPULAR, "plan_then_solve": POPULAR, "grpo": PEAKED, "pkpo": EVEN}
COORDINATED = {"sft": 0.35, "cppo": 0.92}  # probability that a slot's method is one of the best K
METHODS = ["direct", "plan_then_solve", "sft", "grpo", "pkpo", "cppo"]


def ranked_method(context: crossroads.Context, rank: int) -> Method:
    """The context's method with the rank-th largest p, counted from 0."""
    order = sorted(range(8), key=lambda m: -context.p[m])
    return context.family.methods[order[rank]]


def draw_methods(method: str, rng: np.random.Generator, k: int) -> list[int]:
    """The methods that one block of K attempts uses."""
    if method in INDEPENDENT:
        return [int(m) for m in rng.choice(8, size=k, p=INDEPENDENT[method])]
    if k == 8:
        return [int(m) for m in rng.permutation(8)]
    weights = np.where(np.arange(8) < k, COORDINATED[method] / k, (1 - COORDINATED[method]) / (8 - k))
    return [int(m) for m in rng.choice(8, size=k, replace=False, p=weights)]


def hidden_ranks(problems: int) -> list[int]:
    """The rank, by p, of the method that each problem hides; the first problems are the same however many there are."""
    return [int(m) for m in np.random.default_rng(99).choice(8, size=problems, p=P)]


def simulate(method: str, *, seed: int = 0, problems: int = 24, tuples: int = 4, k: int = 4) -> pd.DataFrame:
    """Attempt records of one method and seed; the problems are the same for every method."""
    rng = np.random.default_rng([seed, sum(method.encode())])
    rows = []
    for number, right in enumerate(hidden_ranks(problems)):
        for tuple_index in range(tuples):
            for slot, m in enumerate(draw_methods(method, rng, k)):
                rows.append(_row(method, seed, number, tuple_index, slot, k, m, right))
    return pd.DataFrame(rows)


def _row(
    method: str, seed: int, number: int, tuple_index: int, slot: int, k: int, m: int, right: int
) -> dict[str, object]:
    planned = method in COORDINATED
    wrote = m if (number + tuple_index + slot) % 13 or not planned else right
    context = crossroads.contexts()[number % 12]
    named, written = ranked_method(context, m), ranked_method(context, wrote)
    return {
        "run_id": f"{method}.s{seed}",
        "profile": "test",
        "benchmark": "crossroads",
        "split": "test",
        "method": method,
        "policy": f"runs/test/{method}",
        "seed": seed,
        "problem_id": f"{context.name}/test/{number:03d}",
        "group": context.name,
        "tuple_index": tuple_index,
        "slot": slot,
        "k": k,
        "coordinated": planned,
        "plan": f"1. {named.name}" if planned else None,
        "valid": True if planned else None,
        "strategy": named.name if planned else None,
        "program": written.program,
        "verdict": "AC" if wrote == right else ("WA", "RE", "TLE")[wrote % 3],
        "passed": wrote == right,
        "followed": wrote == m if planned else None,
        "program_method": written.name,
        "reason": "",
        "cached": False,
        "isolation": "full",
        "planner_tokens": 21 if planned and slot == 0 else 0,
        "solver_tokens": 17,
        "cpu_s": 0.01,
        "wall_s": 0.02,
        "gen_s": 0.05,
    }


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


def metrics_rows(arm: str, *, seed: int = 0, steps: int = 30) -> list[dict[str, object]]:
    """Training metrics of one arm whose pass@K climbs from 0.45 to its own end, noisily."""
    rng = np.random.default_rng([seed, sum(arm.encode())])
    end = {"grpo": 0.3, "pkpo": 0.6}.get(arm, 0.85)
    planned = arm not in ("grpo", "pkpo")
    rows: list[dict[str, object]] = []
    for step in range(1, steps + 1):
        done = 1 - np.exp(-3 * step / steps)
        r_out = float(np.clip(0.45 + (end - 0.45) * done + rng.normal(0, 0.03), 0, 1))
        valid = float(np.clip(0.8 + 0.19 * done + rng.normal(0, 0.01), 0, 1))
        rows.append(
            {
                "step": step,
                "r_out": r_out,
                "j": valid if planned else None,
                "r_plan": valid * r_out if planned else None,
                "r_solver": r_out / 3,
                "followed": 0.97 if planned else None,
                "duplicate_rate": 1 - valid if planned else None,
                "distinct_programs": 2 + 1.5 * done * (1 if arm != "grpo" else -1),
                "loss": 0.0,
                "grad_norm": 1.0,
                "kept_rows": 100,
                "planner_tokens": 400 if planned else 0,
                "solver_tokens": 1600,
                "programs": 128,
                "verifier_s": 0.5,
                "generate_s": 0.4,
                "train_s": 0.6,
                "wall_s": 1.5,
            }
        )
    return rows


def write_records(
    runs: Path, frame: pd.DataFrame, *, policy: str = "sft", limit: int = 0, profile: str = "test", tokens: int = 40
) -> Path:
    """Records of one method and seed with their origin, as 04_evaluation leaves them; programs may have `tokens`."""
    first = frame.iloc[0]
    params = {name: str(first[name]) for name in ("benchmark", "split", "method")}
    seed = int(first["seed"])
    params |= {"profile": profile, "seed": seed, "policy": policy, "limit": limit, "max_program_tokens": tokens}
    name = f"{first['benchmark']}.{first['split']}.{first['method']}.s{seed}.parquet"
    path = store.write_parquet(runs / profile / "04_evaluation" / name, frame)
    notes.write_meta(path, params)
    return path


def write_arm(runs: Path, arm: str, seed: int, **changes: object) -> None:
    """Metrics and summary of a trained arm; `changes` are parameters in which it differs from CPPO."""
    folder = runs / "test" / "03_rl_training" / f"{arm}.s{seed}"
    store.append_jsonl(folder / "metrics.jsonl", metrics_rows(arm, seed=seed))
    params = {"profile": "test", "arm": arm, "seed": seed, "policy": "sft", "credit": "own", "reward": "product"}
    notes.write_summary(folder, params | changes, values={}, artefacts=[folder / "metrics.jsonl"])


def write_base(runs: Path, *, model: str = "scratch") -> None:
    """The problems of crossroads, more than any simulated method is evaluated on, and the summary of 02_planner_sft."""
    profile = runs / "test"
    places = [(crossroads.contexts()[number % 12], number, rank) for number, rank in enumerate(hidden_ranks(600))]
    rows = [
        {
            "split": "test",
            "id": f"{context.name}/test/{number:03d}",
            "group": context.name,
            "hidden_method": ranked_method(context, rank).name,
        }
        for context, number, rank in places
    ]
    store.write_parquet(profile / "01_data_prep" / "crossroads" / "problems.parquet", rows)
    params = {"profile": "test", "base_model": model}
    notes.write_summary(profile / "02_planner_sft", params, values={}, artefacts=[])


def in_the_world(results: Results) -> Results:
    """The results beside the ceilings of crossroads itself: few problems per context are easier than the world."""
    world = [
        (context.name, method.name)
        for context in crossroads.contexts()
        for method, p in zip(context.family.methods, context.p, strict=True)
        for _ in range(round(100 * p))
    ]
    return replace(results, hidden=tuple(world))


def write_runs(runs: Path, *, seeds: tuple[int, ...] = (0,), problems: int = 24, tuples: int = 4) -> None:
    """The artefacts of a whole profile `test`, as the notebooks before the tables leave them."""
    write_base(runs)
    for seed in seeds:
        for arm in ("grpo", "pkpo", "cppo"):
            write_arm(runs, arm, seed)
        for method in METHODS:
            policy = {"direct": "base", "plan_then_solve": "sft", "sft": "sft"}.get(method, f"arm:{method}")
            write_records(runs, simulate(method, seed=seed, problems=problems, tuples=tuples), policy=policy)
