"""The procedures by which K programs for a problem come about: their steps, and how each is scored.

The steps of a procedure say which planner calls are made, and with what the K slots are then asked. A slot for which no
method could be read gets the direct prompt, so that every procedure costs exactly K programs whatever the planner
wrote (of `tuple` alone this can be chosen: `task.Unreadable`). Planner calls and tokens are not limited, they are
recorded. The wording is ours: the papers' prompts are longer and were made for larger models. A new procedure is a
function and a line of `PROCEDURES`.

A procedure is `coordinated` unless its K attempts are independent draws of one distribution. Only then may attempts of
several tuples be pooled into the unbiased estimator of pass@k. Where slots share a list or a tree, or have prompts of
their own, pooling would score tuples that nobody drew, and the procedure is scored tuple by tuple
(`cppo_lib.evaluation.estimators`).

Training takes `direct` and `tuple`, for which every process of a distributed run makes the same calls with the same
counts. The others are for evaluation; `plansearch` asks for as many ideas and derived observations as what was read
allows, so its counts differ from problem to problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cppo_lib.rollout import divsampling, plansearch
from cppo_lib.rollout.plans import ParsedTuple, first_line
from cppo_lib.rollout.replies import bare, normalise, said
from cppo_lib.rollout.task import Planned, Slot, Steps, Task

TAIL = 0.1
"""Largest probability that `verbalized_tail` asks for, as in the paper."""
_OBJECT = re.compile(
    r'"method"\s*:\s*(?P<method>"(?:[^"\\\n]|\\.)*")'
    r'\s*(?:,\s*"probability"\s*:\s*(?P<probability>\d*\.?\d+(?:e-?\d+)?))?',
    re.IGNORECASE,
)


def direct(task: Task) -> Steps:
    """K independent programs: K times the direct prompt."""
    yield from ()  # no planner call
    return Planned(task.filled())


def plan_then_solve(task: Task) -> Steps:
    """K independent plans of one method each, each with its program."""
    plans = yield [task.style.planner(task.problem, 1)] * task.k
    methods = [next(iter(task.style.methods(plan)), None) for plan in plans]
    return Planned(tuple(task.follow(method, number) for number, method in enumerate(methods)))


def one_tuple(task: Task) -> Steps:
    """One plan of K methods: CPPO, planner-only SFT and the untrained pipeline. Coordinated: one list.

    With solver_prompt `slot` the solver is told its number instead of its method; with unreadable `nothing` no program
    is written for a plan that does not have exactly K methods.
    """
    (plan,) = yield [task.style.planner(task.problem, task.k)]
    parsed = task.style.read_tuple(plan, task.k)
    if task.unreadable == "nothing" and not parsed.complete:
        return Planned(task.unmade(plan=0), parsed)
    if task.solver_prompt == "slot":
        numbered = (task.style.slot(task.problem, number) for number in range(1, task.k + 1))
        return Planned(tuple(Slot(prompt, plan=0) for prompt in numbered), parsed)
    return Planned(task.filled([task.follow(method, 0) for method in parsed.methods], plan=0), parsed)


def sequential(task: Task) -> Steps:
    """K planner calls, each shown the methods that were named before it. Coordinated: each depends on those.

    A reply may repeat the list it was shown: its first method that is new is taken, and where none is, its first, which
    makes the tuple invalid as a repetition does in a list. The tiny model continues a list in its own format: by
    construction the distribution of `tuple`.
    """
    named: list[str] = []
    slots: list[Slot] = []
    for number in range(task.k):
        (reply,) = yield [task.style.next_method(task.problem, named, task.k)]
        listed = task.style.methods(reply, after=len(named))
        known = set(map(normalise, named))
        method = next((item for item in listed if normalise(item) not in known), listed[0] if listed else None)
        slots.append(task.follow(method, number))
        named += [] if method is None else [method]
    return Planned(tuple(slots), ParsedTuple(tuple(named), len(named) == task.k))


def verbalized(task: Task, *, tail: bool) -> Steps:
    """Verbalized sampling (2510.01171): one list of K methods with their probabilities. Coordinated: one list.

    As JSON: small models give a number in no other format. With `tail`, methods of small probability are asked for.
    """
    source = f"tail of the distribution (each less probable than {TAIL:.2f})" if tail else "full distribution"
    request = (
        f"Name {task.k} different high-level methods to solve it, taken at random from the {source} of all, each "
        f"with its probability. Reply with a JSON list of exactly {task.k} objects and nothing else. Each has the keys "
        '"method", a short phrase of plain words, and "probability", a number between 0 and 1.'
    )
    (plan,) = yield [task.style.ask(task.problem, request)]
    read = read_probabilities(plan)
    parsed = ParsedTuple(tuple(method for method, _ in read[: task.k]), len(read) == task.k)
    return Planned(task.filled([task.follow(method, 0, chance) for method, chance in read[: task.k]], plan=0), parsed)


def read_probabilities(plan: str) -> list[tuple[str, float | None]]:
    """Methods and probabilities of the JSON objects in a plan, which may be cut off or have other words around it.

    The probability is None where none in [0, 1] is given; objects without a method are left out.
    """
    found = []
    for item in _OBJECT.finditer(said(plan)):
        method = bare(_unquote(item["method"]))
        chance = float(item["probability"] or "nan")
        if method:
            found.append((method, chance if 0 <= chance <= 1 else None))
    return found


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text, strict=False)).strip()
    except json.JSONDecodeError:  # a backslash that JSON does not know
        return text[1:-1].strip()


def ifg(task: Task) -> Steps:
    """Intent-factored generation (2506.09659): K times an intent, then its program; the K chains share nothing.

    The two temperatures are the caller's; that of the programs is meant to be lower.
    """
    request = (
        "Before you write the program, state your intent: by which algorithm or idea will you solve it? Reply with one "
        "line of a few keywords, without code."
    )
    intents = yield [task.style.ask(task.problem, request)] * task.k
    return Planned(tuple(task.follow(first_line(intent), number) for number, intent in enumerate(intents)))


@dataclass(frozen=True)
class Procedure:
    """The steps of a procedure, and what a parameter file and a table have to know of it.

    Attributes:
        coordinated: the K attempts are not independent draws of one distribution.
        planned: a planner is called.
    """

    steps: Callable[[Task], Steps]
    coordinated: bool = True
    planned: bool = True


PROCEDURES: dict[str, Procedure] = {
    "direct": Procedure(direct, coordinated=False, planned=False),
    "plan_then_solve": Procedure(plan_then_solve, coordinated=False),
    "tuple": Procedure(one_tuple),
    "sequential": Procedure(sequential),
    "verbalized": Procedure(partial(verbalized, tail=False)),
    "verbalized_tail": Procedure(partial(verbalized, tail=True)),
    "ifg": Procedure(ifg, coordinated=False),
    "divsampling": Procedure(divsampling.injected, planned=False),
    "divsampling_ideas": Procedure(divsampling.ideas),
    "plansearch": Procedure(plansearch.search),
    "plansearch_lite": Procedure(plansearch.lite),
}
