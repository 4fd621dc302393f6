"""Is there anything to learn from? How dense the planner's reward is, and the verdict before a joint run.

The authors' fourth stage (Li et al. 2026, the authors' code at 8e5ea8a4) rolls out without training, and stops where
hardly a tuple is paid or all tuples of a problem are paid alike. The same rates are logged in every step of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

RATES = {
    "paid_tuples": "share of tuples with R_plan above 0",
    "paid_problems": "share of problems with such a tuple",
    "mixed_problems": "share of problems whose tuples are not all paid alike: only these teach the planner",
    "j": "share of tuples that pass the gate",
    "read_tuples": "share of tuples that could be read: K methods were named",
    "reward_variance": "variance of R_plan over the tuples of a problem, mean over problems",
}


def density(r_plan: Tensor, valid: Tensor, readable: Tensor) -> dict[str, float]:
    """The rates of `RATES`; all three have shape (problems, tuples)."""
    paid = r_plan > 0
    return {
        "paid_tuples": paid.float().mean().item(),
        "paid_problems": paid.any(dim=-1).float().mean().item(),
        "mixed_problems": (r_plan.amax(dim=-1) > r_plan.amin(dim=-1)).float().mean().item(),
        "j": valid.float().mean().item(),
        "read_tuples": readable.float().mean().item(),
        "reward_variance": r_plan.float().var(dim=-1, correction=0).mean().item(),
    }


@dataclass(frozen=True)
class Bound:
    """A rate's bounds for `go`, and the one past which it is `no-go`; what a rate that misses means, and what to do.

    Attributes:
        rate: a key of `RATES`; low, high: `go` needs a rate of at least (more than) `low` and less than `high`.
        stop: `no-go` below it; None: it stops no run alone.
        meaning: what such a rate says, and which stage to go back to.
    """

    rate: str
    low: float
    meaning: str
    high: float = float("inf")
    stop: float | None = None


BOUNDS = (
    Bound(
        "read_tuples",
        0.95,
        "many plans cannot be read: give the planner more SFT (02_planner_sft) or plans more max_plan_tokens",
    ),
    Bound(
        "j",
        0.02,
        "the gate takes nearly all tuples or nearly none, so that J teaches nothing: look at tau and at the gate's "
        "table (02b_gate), then at the planner's plans",
        high=0.98,
    ),
    Bound(
        "paid_tuples",
        0.05,
        "hardly a tuple is paid: take easier problems or a stronger solver, or train the planner further (02_planner_"
        "sft, the warm-up)",
        stop=0.03,
    ),
    Bound(
        "paid_problems",
        0.25,
        "most problems have no tuple that is paid: take easier problems or a stronger solver (01_data_prep)",
        stop=0.10,
    ),
    Bound(
        "mixed_problems",
        0.10,
        "tuples of a problem are paid alike, so that the planner learns nothing from them: raise group_size or "
        "planner_temperature, or take other problems",
    ),
)
"""The released bounds. The authors' two for `no-go` by problems (fewer than .05 with a paid tuple, more than .90 with
none) are one: the second is the stricter."""


@dataclass(frozen=True)
class Verdict:
    """What the rates say.

    Attributes:
        word: `go`; `no-go`: a rate is past its stop; or `unsure`: one misses `go`, and none is past its stop.
        reasons: a sentence for each rate that misses `go`, those that stop first.
    """

    word: Literal["go", "unsure", "no-go"]
    reasons: tuple[str, ...]


def verdict(rates: Mapping[str, float]) -> Verdict:
    """The verdict on rates of `density`."""
    stops = [bound for bound in BOUNDS if bound.stop is not None and rates[bound.rate] < bound.stop]
    misses = [bound for bound in BOUNDS if bound not in stops and not bound.low <= rates[bound.rate] < bound.high]
    reasons = tuple(f"{bound.rate} is {rates[bound.rate]:.3f}: {bound.meaning}" for bound in (*stops, *misses))
    return Verdict("no-go" if stops else "unsure" if misses else "go", reasons)
