"""PlanSearch (2409.03733): ideas from combinations of observations about the problem.

The model lists observations. Every subset of at most two of them is a leaf; in the full form each subset that is not
empty is also the ground for new, derived observations, whose subsets are leaves as well, as in the authors' code. K
leaves are drawn uniformly and without replacement, an idea (a solution in words) is asked for on each, and its program
is written from the idea. Coordinated: a leaf is never used twice. Where a tree has fewer than K, the other slots get
the direct prompt, while the authors' code fills up with repeated programs.

Other departures: the authors have the model rewrite its observations as a list, filter them, and write pseudocode
between idea and program; we ask for a list at once and for the program from the idea. Ideas are asked for on the drawn
leaves alone, since no other is used, and public tests select nothing.

The full form takes hundreds of times the planner tokens of a tuple of methods. The lite form is as near to a tuple's
tokens as a search can be: one layer of as few observations as have K subsets (two for K=4), and one call that lists
the ideas of all drawn leaves, a line each. Its planner sees the leaves together, as that of a tuple sees its methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations, count

from cppo_lib.rollout.plans import parse_tuple
from cppo_lib.rollout.replies import normalise, said
from cppo_lib.rollout.task import Planned, Steps, Task

Leaf = tuple[str, ...]
SUBSET = 2
"""Observations that are combined at most."""
OBSERVATIONS, DERIVED = 10, 3
"""How large the full tree is grown: observations at the root, and derived ones on each subset of them."""
_IDEA = "Describe in words, in at most five sentences and without code, how to solve it."


def search(task: Task) -> Steps:
    """Observations, derived observations, and an idea on each of K drawn leaves."""
    (text,) = yield [task.style.ask(task.problem, _observe(OBSERVATIONS))]
    leaves = subsets(parse_tuple(text, OBSERVATIONS).methods)
    grounds = [leaf for leaf in leaves.values() if leaf]
    texts = yield [task.style.ask(task.problem, _given(leaf) + _derive(DERIVED)) for leaf in grounds]
    for text in texts:
        leaves = subsets(parse_tuple(text, DERIVED).methods) | leaves
    drawn = _drawn(task, leaves)
    ideas = yield [task.style.ask(task.problem, _given(leaf) + _IDEA) for leaf in drawn]
    calls = 1 + len(grounds)
    told = [said(idea).strip() or None for idea in ideas]
    return Planned(task.filled([task.follow(idea, calls + number) for number, idea in enumerate(told)]))


def lite(task: Task) -> Steps:
    """As few observations as have K subsets, and one list of the ideas on K drawn leaves."""
    asked = next(n for n in count(1) if 1 + n + n * (n - 1) // 2 >= task.k)
    (text,) = yield [task.style.ask(task.problem, _observe(asked))]
    drawn = _drawn(task, subsets(parse_tuple(text, asked).methods))
    (listed,) = yield [task.style.ask(task.problem, _list_ideas(drawn))]
    ideas = (*parse_tuple(listed, len(drawn)).methods, *[None] * len(drawn))
    return Planned(task.filled([task.follow(idea, 1) for idea in ideas[: len(drawn)]]))


def _drawn(task: Task, leaves: Mapping[frozenset[str], Leaf]) -> list[Leaf]:
    """K leaves, or all of them where there are fewer."""
    return task.rng.sample(list(leaves.values()), min(task.k, len(leaves)))


def subsets(observations: Iterable[str]) -> dict[frozenset[str], Leaf]:
    """The leaves over some observations, the empty one included, by their content: equal ones are one leaf."""
    distinct: dict[str, str] = {}
    for text in observations:
        if words := normalise(text):
            distinct.setdefault(words, text)
    chosen = (keys for size in range(SUBSET + 1) for keys in combinations(distinct, size))
    return {frozenset(keys): tuple(distinct[key] for key in keys) for keys in chosen}


def _observe(number: int) -> str:
    return f"Make {number} observations about it that are not obvious and would help to solve it. {_lines(number)}"


def _derive(number: int) -> str:
    return f"Think of {number} new observations that follow from this and would help to solve it. {_lines(number)}"


def _lines(number: int) -> str:
    return (
        f"Reply with a numbered list of exactly {number} lines and nothing else: on each line one observation in a few "
        "words, without code and explanations."
    )


def _given(leaf: Leaf) -> str:
    return "".join(["This is known about it:\n", *[f"- {text}\n" for text in leaf], "\n"]) if leaf else ""


def _list_ideas(leaves: list[Leaf]) -> str:
    groups = "".join(f"{number}. {'; '.join(leaf) or 'nothing'}\n" for number, leaf in enumerate(leaves, start=1))
    return (
        f"This is known about it, in {len(leaves)} groups:\n{groups}\nFor each group, in this order, name the method "
        f"that it suggests. Reply with a numbered list of exactly {len(leaves)} lines and nothing else: on each one "
        "method in a few words, without code and explanations."
    )
