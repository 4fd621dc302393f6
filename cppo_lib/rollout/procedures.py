"""The procedures by which K programs for a problem come about, and how each is scored.

All of them end with exactly K programs. They differ in what the K solver prompts say and in the planner calls that are
made for that; `cppo_lib.rollout.planning` has the steps of each. Planner calls and tokens are not limited, they are
recorded.

A procedure is `coordinated` unless its K attempts are independent draws of one distribution. Only then may attempts of
several tuples be pooled into the unbiased estimator of pass@k. Where slots share a list or a tree, or have prompts of
their own, pooling would score tuples that nobody drew, and the procedure is scored tuple by tuple
(`cppo_lib.evaluation.estimators`).

- `direct`: K independent programs;
- `plan_then_solve`: K independent one-method plans, each with its program;
- `tuple`: one plan of K methods (CPPO, planner-only SFT and the untrained pipeline). Coordinated: one list;
- `sequential`: method k is asked for with methods 1 to k-1 in the prompt. Coordinated: each depends on those before;
- `verbalized`, `verbalized_tail`: verbalized sampling (2510.01171): one call lists K methods with probabilities, in
  the second form from the tail of the distribution. Coordinated: one list;
- `ifg`: intent-factored generation (2506.09659): K times an intent at `planner_temperature`, then a program at
  `temperature`, which is meant to be lower. Independent: the K chains share nothing;
- `divsampling`: task-agnostic diversified sampling (2502.11027): K different roles and instructions, a program for
  each. Coordinated: they are drawn without replacement;
- `divsampling_ideas`: its task-specific form: one call lists K ideas, each is a hint in one prompt. Coordinated: one
  list;
- `plansearch`, `plansearch_lite`: a search over observations (2409.03733, see `cppo_lib.rollout.plansearch`).
Coordinated: K
  leaves of one tree, drawn without replacement.

Training takes `direct` and `tuple`, for which every process of a distributed run makes the same calls with the same
counts. The others are for evaluation; `plansearch` asks for as many ideas and derived observations as what was read
allows, so its counts differ from problem to problem.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProcedureName = Literal[
    "direct",
    "plan_then_solve",
    "tuple",
    "sequential",
    "verbalized",
    "verbalized_tail",
    "ifg",
    "divsampling",
    "divsampling_ideas",
    "plansearch",
    "plansearch_lite",
]


@dataclass(frozen=True)
class Procedure:
    """What a parameter file and a table have to know of a procedure.

    Attributes:
        coordinated: the K attempts are not independent draws of one distribution.
        planned: a planner is called.
        brief: the tiny model's plain prompts can express it.
    """

    coordinated: bool = True
    planned: bool = True
    brief: bool = False


PROCEDURES: dict[ProcedureName, Procedure] = {
    "direct": Procedure(coordinated=False, planned=False, brief=True),
    "plan_then_solve": Procedure(coordinated=False, brief=True),
    "tuple": Procedure(brief=True),
    # A list that is continued in the tiny model's format: by construction the distribution of `tuple`.
    "sequential": Procedure(brief=True),
    "verbalized": Procedure(),
    "verbalized_tail": Procedure(),
    "ifg": Procedure(coordinated=False),
    "divsampling": Procedure(planned=False),
    "divsampling_ideas": Procedure(),
    "plansearch": Procedure(),
    "plansearch_lite": Procedure(),
}

BRIEF = tuple(name for name, procedure in PROCEDURES.items() if procedure.brief)
"""Procedures that `prompt_style: brief` has words for."""

NOT_BRIEF = (
    f"prompt_style: brief is for a model that was taught {', '.join(BRIEF)} alone: choose one of these, or name a chat "
    "model and prompt_style: instruct"
)
