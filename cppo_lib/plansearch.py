"""PlanSearch (2409.03733): ideas from combinations of observations about the problem.

The model lists observations. Every subset of at most two of them is a leaf; in the full form each subset that is not
empty is also the ground for new, derived observations, whose subsets are leaves as well, as in the authors' code. K
leaves are drawn uniformly and without replacement, an idea (a solution in words) is asked for on each, and its program
is written from the idea. A leaf is never used twice: where a tree has fewer than K, the other slots get the direct
prompt, while the authors' code fills up with repeated programs.

Other departures: the authors have the model rewrite its observations as a list, filter them, and write pseudocode
between idea and program; we ask for a list at once and for the program from the idea. Ideas are asked for on the drawn
leaves alone, since no other is used, and public tests select nothing. The lite form, one layer and ideas of one line,
takes a few times the planner tokens of a tuple of methods, where the full form takes hundreds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from cppo_lib.gate import normalise
from cppo_lib.prompts import parse_tuple
from cppo_lib.slots import Planned, Steps, Task

Leaf = tuple[str, ...]
SUBSET = 2
"""Observations that are combined at most."""


@dataclass(frozen=True)
class Tree:
    """How large a tree is grown.

    Attributes:
        observations: asked for at the root.
        derived: asked for on each subset of them; 0: one layer only.
        idea: how an idea is asked for.
    """

    observations: int
    derived: int
    idea: str


FULL = Tree(10, 3, "Describe in words, in at most five sentences and without code, how to solve it.")
LITE = Tree(4, 0, "Which algorithm or idea solves it? Reply with one short sentence in plain words, without code.")


def search(task: Task, *, tree: Tree) -> Steps:
    """Observations, derived observations where the tree has them, and an idea on each of K drawn leaves."""
    (text,) = yield [task.style.ask(task.problem, _observe(tree.observations))]
    leaves = subsets(parse_tuple(text, tree.observations).methods)
    calls = 1
    if tree.derived:
        grounds = [leaf for leaf in leaves.values() if leaf]
        texts = yield [task.style.ask(task.problem, _given(leaf) + _derive(tree.derived)) for leaf in grounds]
        calls += len(grounds)
        for text in texts:
            leaves = subsets(parse_tuple(text, tree.derived).methods) | leaves
    drawn = task.rng.sample(list(leaves.values()), min(task.k, len(leaves)))
    ideas = yield [task.style.ask(task.problem, _given(leaf) + tree.idea) for leaf in drawn]
    slots = [task.follow(idea.strip() or None, calls + number) for number, idea in enumerate(ideas)]
    return Planned((*slots, *[task.direct()] * (task.k - len(slots))))


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
