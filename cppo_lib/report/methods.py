"""The methods that tables and figures name, each listed once, in the order of the paper's story.

A new arm is one line of `METHODS`: what it is called, its family, and if it should have one of its own, its look.
Without a line it comes last, under the name of its records and with one of `OTHERS` for a look.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TARGET = "cppo"
"""The algorithm as its authors released it;"""
FAITHFUL = "cppo_faithful"
"""and ours, whose solver is paid for following its method."""
BASELINES = ("pkpo", "direct", TARGET)
"""What the others are compared with, fixed before any record is read: the first that was evaluated."""
HEADLINE = (TARGET, "pkpo", "grpo", "sft", "direct", "plan_then_solve")
"""The methods that a figure with a line for each shows first,"""
MOST_LINES = 8
"""and how many it can show."""

# What CPPO is compared with, in the abstract's words but for the fourth.
DIRECT, PLANNING, SFT = "direct sampling", "planning baselines", "planner-only SFT"
SINGLE, PASS_AT_K = "RL for single programs", "pass@K-oriented RL"
RIVALS = (DIRECT, PLANNING, SFT, SINGLE, PASS_AT_K)
# What ablations change: each is CPPO with one choice changed.
REWARD, CREDIT = "the planner's reward and its gate", "the solver's credit"
GROUPING, SHARING = "the grouping of solver rewards", "weights, shared parameters and the plan's text"
LOSS = "the loss and its samples"
SIZE = "K"
VARIANT = "CPPO with several choices changed"
"""Neither a rival nor an ablation: rows of the main table, and never the best *other* method."""
CHOICES = (REWARD, CREDIT, GROUPING, LOSS, SHARING)


@dataclass(frozen=True)
class Look:
    """How a method is drawn: told apart in greyscale by lightness, marker and dashes (none: a solid line)."""

    color: str
    marker: str
    dashes: tuple[int, ...] = ()

    @property
    def ls(self) -> str | tuple[int, tuple[int, ...]]:
        """The line style in matplotlib's form."""
        return (0, self.dashes) if self.dashes else "solid"


@dataclass(frozen=True)
class Method:
    """What a method is called, its family (one of `RIVALS`, `CHOICES`, `SIZE`, `VARIANT` or none), how it is drawn."""

    label: str
    family: str = ""
    look: Look | None = None


METHODS = {
    "direct": Method("Direct sampling", DIRECT, Look("#8c8c8c", "s", (1, 1))),
    "direct_tuned": Method("Direct, tuned temperature", DIRECT, Look("#6e6e6e", "P", (1, 2))),
    "divsampling": Method("DivSampling, roles", DIRECT),
    "divsampling_ideas": Method("DivSampling, ideas"),
    "ifg": Method("Intent-factored generation", PLANNING),
    "verbalized": Method("Verbalized sampling", PLANNING),
    "verbalized_tail": Method("Verbalized sampling, tail"),
    "plan_then_solve": Method("Plan-then-solve (i.i.d.)", PLANNING, Look("#bdbdbd", "D", (3, 1, 1, 1))),
    "sequential": Method("Sequential planner", PLANNING),
    "plansearch": Method("PlanSearch", PLANNING),
    "plansearch_lite": Method("PlanSearch, about equal tokens", PLANNING),
    "untrained": Method("Untrained pipeline", PLANNING, Look("#a6c8a0", "h", (2, 2))),
    "sft": Method("Planner-only SFT", SFT, Look("#5ab4ac", "v", (5, 2))),
    "grpo": Method("GRPO", SINGLE, Look("#f0a030", "^", (2, 1))),
    "dr_grpo": Method("Dr. GRPO", SINGLE),
    "grpo_entropy": Method("GRPO, entropy bonus", SINGLE),
    "unlikeliness": Method("Unlikeliness", SINGLE),
    "nsr": Method("NSR", SINGLE),
    "w_reinforce": Method("W-REINFORCE", SINGLE),
    "pass_at_k": Method("Pass@k Training", PASS_AT_K),
    "pkpo_loo": Method("PKPO, loo", PASS_AT_K),
    "pkpo_annealed": Method("PKPO, annealed k", PASS_AT_K),
    "pkpo": Method("PKPO", PASS_AT_K, Look("#3a78b5", "o", (4, 1))),
    "cppo_8_steps": Method("CPPO, released schedule", VARIANT, Look("#c98ba0", "X", (1, 1))),
    "cppo_200": Method("CPPO, 200 steps", VARIANT),
    "cppo_direct": Method("CPPO's policy, direct", VARIANT),
    "cppo_planner": Method("CPPO's planner, base solver", VARIANT),
    "cppo_faithful": Method("CPPO (faithful)", VARIANT, Look("#b5562f", "p", (6, 1))),
    "cppo": Method("CPPO", look=Look("#7b1e3a", "*")),
    "reward_sum": Method("Reward J + R_out", REWARD),
    "reward_outcome": Method("Reward R_out", REWARD),
    "reward_gate": Method("Reward J", REWARD),
    "gate_trained": Method("Gate: trained", REWARD),
    "gate_llm": Method("Gate: chat model", REWARD),
    "tests_fraction": Method("R_out: share of tests", REWARD),
    "credit_followed": Method("Credit: followed", CREDIT),
    "credit_tuple": Method("Credit: tuple", CREDIT),
    "credit_marginal": Method("Credit: marginal", CREDIT),
    "credit_frozen": Method("Credit: frozen solver", CREDIT),
    "group_problem": Method("Group: problem", GROUPING),
    "group_slot": Method("Group: slot", GROUPING),
    "group_method": Method("Group: method", GROUPING),
    "std_sample": Method("Advantage: sample std", GROUPING),
    "loss_regions": Method("Loss: by region", LOSS),
    "temperature_one": Method("Temperature 1", LOSS),
    "no_kl": Method("No KL term", LOSS),
    "weights_planner": Method("Weights: planner", SHARING),
    "weights_solver": Method("Weights: solver", SHARING),
    "slot_only": Method("Slot number for a plan", SHARING),
    "one_adapter": Method("LoRA, one adapter", SHARING),
    "two_adapters": Method("LoRA, one per role", SHARING),
    "k1": Method("K = 1", SIZE),
    "k2": Method("K = 2", SIZE),
    "k8": Method("K = 8", SIZE),
}
OTHERS = (
    Look("#444444", "X", (1, 3)),
    Look("#c49a6c", "<", (3, 2)),
    Look("#8fa8c8", ">", (6, 2)),
    Look("#556b2f", "p", (3, 1, 1, 1, 1, 1)),
    Look("#b07aa1", "d", (1, 1)),
    Look("#d9d9d9", "8", (2, 2)),
)
"""For methods without a look of their own, in turn."""
_TAKING_TURNS = [name for name, method in METHODS.items() if method.look is None]


def _of(method: str) -> Method:
    return METHODS.get(method, Method(method))


def label(method: str) -> str:
    """The name of a method in tables and figures."""
    return _of(method).label


def look(method: str) -> Look:
    """The look of a method; methods without one of their own take turns."""
    turn = _TAKING_TURNS.index(method) if method in _TAKING_TURNS else zlib.crc32(method.encode())
    return _of(method).look or OTHERS[turn % len(OTHERS)]


def family(method: str) -> str:
    """What a method is one of, empty for none."""
    return _of(method).family


def is_ablation(method: str) -> bool:
    """Is the method CPPO with one choice changed? Ablations have tables of their own."""
    return family(method) in (*CHOICES, SIZE)


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of `METHODS`, then others by name."""
    known = list(METHODS)
    return sorted(methods, key=lambda name: (known.index(name) if name in known else len(known), name))


def best_known(methods: Sequence[str]) -> list[str]:
    """The methods that a figure with a line for each can show: all, or `HEADLINE` and the first of the others."""
    first = dict.fromkeys([*(method for method in HEADLINE if method in methods), *methods])
    return [method for method in methods if method in list(first)[:MOST_LINES]]
