"""Diversified sampling (2502.11027): K different prompts for the same problem, one program each.

The task-agnostic form puts a role and an instruction in front of the problem. They are drawn without replacement, so
that up to eight slots share neither, and up to 64 are all different. The task-specific form has the model list K ideas
first and puts one into each prompt as a hint, which, unlike the method of a plan, need not be followed. Roles,
instructions and wording are ours.
"""

from __future__ import annotations

from cppo_lib.rollout.plans import parse_tuple
from cppo_lib.rollout.task import Planned, Slot, Steps, Task

ROLES = (
    "You are a competitive programmer who has seen many problems of this kind.",
    "You are a mathematician who first looks for a formula or an invariant.",
    "You are a careful engineer who thinks of every edge case.",
    "You are a teacher who prefers the plainest solution that works.",
    "You are an optimiser who thinks about running time and memory.",
    "You are an inventor who distrusts the first idea that comes to mind.",
    "You are a tester who knows how solutions to such problems usually fail.",
    "You are an expert of Python's standard library.",
)
INSTRUCTIONS = (
    "Write code that is easy to read.",
    "Write code that is as short as it can be.",
    "Write code that is fast on large inputs.",
    "Divide the work into small helper functions.",
    "Go through the input step by step, with plain loops.",
    "Choose the data structure first and let the code follow from it.",
    "Work through the examples by hand before you write the code.",
    "Solve a simpler version of the problem first, then extend it.",
)


def injections(task: Task) -> list[str]:
    """K different pairs of a role and an instruction; K may be 64 at most."""
    roles, instructions = (task.rng.sample(texts, len(texts)) for texts in (ROLES, INSTRUCTIONS))
    each = len(INSTRUCTIONS)
    return [f"{roles[n % each]} {instructions[(n + n // each) % each]}" for n in range(task.k)]


def injected(task: Task) -> Steps:
    """K direct prompts with something different in front of each. Coordinated: drawn without replacement."""
    yield from ()  # no planner call
    slots = [
        Slot(task.style.direct(task.problem, before=injection), injection=injection) for injection in injections(task)
    ]
    return Planned(tuple(slots))


def ideas(task: Task) -> Steps:
    """One list of K ideas, each the hint of one prompt; the direct prompt for slots that it has no idea for.

    Coordinated: one list.
    """
    request = (
        f"Think of {task.k} different ideas, each of which may help to solve it. Reply with a numbered list of exactly "
        f"{task.k} lines and nothing else: on each line one idea in a few words, without code and explanations."
    )
    (plan,) = yield [task.style.ask(task.problem, request)]
    parsed = parse_tuple(plan, task.k)
    hinted = [
        Slot(task.style.direct(task.problem, after=f"An idea that may help: {idea}"), idea, 0)
        for idea in parsed.methods
    ]
    return Planned(task.filled(hinted, plan=0), parsed)
