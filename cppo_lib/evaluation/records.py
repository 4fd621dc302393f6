"""Attempt records: one row per verified program, the only thing that tables and figures are made of.

Columns (nullable ones are marked):

    run_id, profile, benchmark, split   which run; run_id is <benchmark>.<split>.<method>.s<seed>
    method, policy, seed                row label, model folder or hub id, RL and sampling seed
    problem_id, group                   group: family/clue for crossroads, else difficulty or empty
    tuple_index, slot, k                0..T-1, 0..K-1, K
    coordinated                         False: the attempts on a problem are i.i.d.
    plan (null)                         the planner's text that this slot's method comes from
    probability (null)                  what the planner said the method's probability is
    injection (null)                    role and instruction that were put in front of the problem
    valid (null)                        gate J of the tuple; null where there was no tuple
    strategy (null)                     the method the solver was given; null: none was named
    program_rule                        how the program was read from the reply: a rule of
                                        `cppo_lib.rollout.replies`, `whole` or `assertion`
    program, verdict, passed, reason    what was run and what became of it; verdict NA: the attempt was not
                                        made (`unreadable: nothing`), the program is empty and the
                                        attempt counts as failed
    followed (null)                     the program implements its strategy; null: nobody can tell
    program_method (null)               the method the program implements (crossroads)
    cached                              the verdict was known before
    planner_calls, planner_tokens,      calls and generated tokens, so that a plain sum is right: a
    solver_tokens                       planner call that serves several slots is counted on the
                                        first of them, one that serves none on slot 0
    cpu_s, wall_s                       the verifier's seconds on this program's tests
    gen_s                               this row's equal share of its chunk's generation time
    isolation                           the verifier's isolation layers: `full`, or which were missing
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths
from cppo_lib.evaluation.estimators import check_attempts, pass_at_k
from cppo_lib.reward import plan_following
from cppo_lib.reward.gate_rules import GatedMember
from cppo_lib.rollout.procedures import PROCEDURES
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.verifier import Result

# Named types keep a column the same in every file, also where all its values are null.
_DTYPES = {
    "plan": "string",
    "probability": "Float64",
    "injection": "string",
    "valid": "boolean",
    "strategy": "string",
    "followed": "boolean",
    "program_method": "string",
}


@dataclass(frozen=True)
class Run:
    """Which evaluation records are of: columns that all of its rows share.

    Attributes:
        method: row label in the tables.
        policy: model folder or hub id, as users should read it.
        seed: of RL and of sampling.
    """

    profile: str
    benchmark: str
    split: str
    method: str
    policy: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the records: `<benchmark>.<split>.<method>.s<seed>`."""
        return paths.records_name(self.benchmark, self.split, self.method, self.seed)


def attempt_records(
    run: Run,
    members: Sequence[GatedMember],
    results: Sequence[Sequence[Result]],
    implemented: Sequence[Sequence[str | None]] | None,
    *,
    procedure: str,
    style: PromptStyle,
    tuples: int,
    gen_s: float,
) -> pd.DataFrame:
    """The records of a chunk: `tuples` members per problem side by side, K rows per member.

    Args:
        results: per member and slot the verifier's result.
        implemented: per member and slot the method of the program; None where nobody can tell.
        procedure: how the members were made.
        style: what the policy was asked with, which says how programs were read.
        gen_s: seconds that generating the chunk took.
    """
    share = gen_s / max(sum(len(member.programs) for member in members), 1)
    rows = []
    for number, member in enumerate(members):
        k, meta = len(member.programs), member.problem.meta
        methods = implemented[number] if implemented is not None else [None] * k
        follows = plan_following.followed(member, methods) if implemented is not None else [None] * k
        shared = asdict(run) | {
            "run_id": run.name,
            "problem_id": member.problem.id,
            "group": str(meta.get("group") or meta.get("difficulty") or ""),
            "tuple_index": number % tuples,
            "k": k,
            "coordinated": PROCEDURES[procedure].coordinated,
            "program_rule": style.read_by(member.problem),
            "valid": member.valid,
            "gen_s": share,
        }
        own_calls = _own_calls(member)
        for slot, result in enumerate(results[number]):
            asked = member.slots[slot]
            own = {
                "slot": slot,
                "plan": None if asked.plan is None else member.plans[asked.plan].text,
                "strategy": asked.strategy,
                "probability": asked.probability,
                "injection": asked.injection,
                "program": member.programs[slot],
                "followed": follows[slot],
                "program_method": methods[slot],
                "planner_calls": len(own_calls[slot]),
                "planner_tokens": sum(own_calls[slot]),
                "solver_tokens": len(member.attempts[slot].completion.ids),
            }
            rows.append(shared | own | {name: getattr(result, name) for name in _RESULT_COLUMNS})
    return pd.DataFrame(rows)[list(COLUMNS)].astype(_DTYPES)


_RESULT_COLUMNS = ("verdict", "passed", "reason", "cached", "cpu_s", "wall_s", "isolation")
COLUMNS = (
    "run_id", "profile", "benchmark", "split", "method", "policy", "seed", "problem_id", "group",
    "tuple_index", "slot", "k", "coordinated", "plan", "valid", "strategy", "probability",
    "injection", "program_rule", "program", "verdict", "passed", "followed", "program_method", "reason", "cached",
    "planner_calls", "planner_tokens", "solver_tokens", "cpu_s", "wall_s", "gen_s", "isolation",
)  # fmt: skip


def _own_calls(member: GatedMember) -> list[list[int]]:
    """Per slot the tokens of the planner calls that are counted on it: the first that a call serves, else slot 0."""
    served = [slot.plan for slot in member.slots]
    own: list[list[int]] = [[] for _ in served]
    for number, plan in enumerate(member.plans):
        own[served.index(number) if number in served else 0].append(len(plan.completion.ids))
    return own


def summary(attempts: pd.DataFrame) -> dict[str, Any]:
    """What the records of one method say, in one row; None where it is not known.

    Keys: method; problems; attempts per problem and seed; `pass@K` and `pass@1`, each by the
    estimand that fits the records (`cppo_lib.evaluation.estimators`); valid (share of tuples) and followed (share
    of attempts); planner calls, planner and solver tokens, generation and verifier seconds per tuple
    of K.

    Raises:
        ParameterError: records of several methods, or incomplete ones.
    """
    k = check_attempts(attempts)
    tuples = len(attempts) / k
    problems = attempts["problem_id"].nunique()
    spent = attempts[["planner_calls", "planner_tokens", "solver_tokens", "gen_s", "wall_s"]].sum() / tuples
    return {
        "method": str(attempts["method"].iloc[0]),
        "problems": problems,
        "attempts_per_problem": len(attempts) // (problems * attempts["seed"].nunique()),
        f"pass@{k}": pass_at_k(attempts),
        "pass@1": pass_at_k(attempts, k=1),
        "valid": _share(attempts["valid"]),
        "followed": _share(attempts["followed"]),
        "planner_calls": float(spent["planner_calls"]),
        "planner_tokens": float(spent["planner_tokens"]),
        "solver_tokens": float(spent["solver_tokens"]),
        "generate_s": float(spent["gen_s"]),
        "verifier_s": float(spent["wall_s"]),
    }


def _share(flags: pd.Series[Any]) -> float | None:
    known = flags.dropna()
    return float(known.mean()) if len(known) else None
