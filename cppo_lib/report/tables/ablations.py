"""T3, T4 and T5: CPPO with one choice changed.

An ablation is an arm and a method of one name (`results.ABLATIONS`). What is different about it is read from the
parameters that its training recorded, not from its name. CPPO itself is what all are compared with, fixed in advance;
Holm's adjustment is over the comparisons of a table. Arms of another K have no paired difference at one K: T5 sets each
beside the ceilings of its own K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.evaluation.bootstrap import bootstrap_interval
from cppo_lib.evaluation.diversity import diversity_summary
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.evaluation.significance import holm
from cppo_lib.report import render
from cppo_lib.report.cells import Cell
from cppo_lib.report.comparisons import ALPHA, TARGET, detectable, difference, draws, mark
from cppo_lib.report.render import Table
from cppo_lib.report.results import CREDIT, GROUPING, REWARD, SHARING, SWEEP, Results, label
from cppo_lib.report.tables.attempts import training_means
from cppo_lib.report.tables.main import seeds_caveat, span

_NAMING = {"arm", "seed", "profile"}


def reward_table(results: Results) -> Table | None:
    """T3: what the planner is paid for; None without an arm of the kind."""
    about = (
        "CPPO pays the planner J * R_out. J and R_out are means over the last tenth of training; valid tuples and "
        "duplicates are those of the evaluation."
    )
    return _compared(results, REWARD, "T3_reward", "What the planner is paid for", about)


def solver_table(results: Results) -> Table | None:
    """T4: what a solver is paid for, compared with and told; None without an arm of the kind."""
    about = (
        "Plan followed: share of programs that implement the method they were given. A solver that is paid for any "
        "success can pass more often by ignoring its method, which undoes the coordination."
    )
    arms = (*CREDIT, *GROUPING, *SHARING)
    return _compared(results, arms, "T4_solver", "Solver credit, grouping, weights and sharing", about)


def _compared(results: Results, arms: Sequence[str], name: str, title: str, about: str) -> Table | None:
    methods = [method for method in results.ablations if method in arms]
    if not methods:
        return None
    base = TARGET if TARGET in results.methods else None
    gaps = {method: difference(results, method, base) for method in methods if base}
    adjusted = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
    rows = []
    for method in [TARGET, *methods] if base else methods:
        row = _measures(results, method)
        if gap := gaps.get(method):
            row |= {"difference": gap.estimate, "difference_low": gap.low, "difference_high": gap.high}
            row |= {"p": gap.p_value, "p_holm": adjusted[method], "second_p": gap.second_p}
            row |= {"mark": mark(gap, adjusted[method]), "detectable": detectable(gap)}
        rows.append(row)
    numbers = pd.DataFrame(rows)
    caption = f"{results.setting()}. {about} {seeds_caveat([Cell('', results)])}"
    if gaps:
        effects = span([detectable(gap) for gap in gaps.values()])
        caption += (
            f" * p < {ALPHA}, ** after Holm's adjustment over {len(gaps)} comparisons, † the second test is on the "
            f"other side. Found with 80 % power: differences of {effects}."
        )
    return Table(name, title, caption, numbers, _shown(results, numbers))


def _measures(results: Results, method: str) -> dict[str, Any]:
    attempts = results.of(method)
    interval = bootstrap_interval(score_table(attempts), **draws(results))
    told = diversity_summary(attempts)
    ends = training_means(results, method)
    return {
        "method": method,
        "change": _change(results, method),
        "k": results.sizes[method],
        "pass@1": score_table(attempts, k=1).mean_score(),
        "pass@K": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "follow_rate": told["follow_rate"],
        "valid_rate": told["valid_rate"],
        "duplicate_rate": told["duplicate_rate"],
        "distinct_methods": told["distinct_methods"],
        "end_j": ends.get("j"),
        "end_r_out": ends.get("r_out"),
        "planner_tokens": float(attempts["planner_tokens"].sum() / (len(attempts) / results.sizes[method])),
        "seeds": interval.n_seeds,
    }


def _change(results: Results, method: str) -> str:
    """Parameters of the arm's training that differ from CPPO's, such as `credit: own`; empty without a summary."""
    own, base = (_trained_with(results, arm) for arm in (method, TARGET))
    if own is None or base is None:
        return ""
    keys = [key for key in own if key not in _NAMING and own[key] != base.get(key)]
    return ", ".join(f"{key}: {own[key]}" for key in keys)


def _trained_with(results: Results, arm: str) -> Mapping[str, Any] | None:
    summary = paths.runs_root() / results.params.profile / "03_rl_training" / f"{arm}.s0" / "summary.json"
    params: Mapping[str, Any] | None = None
    if summary.exists():
        params = store.read_json(summary)["provenance"]["params"]
    return params


def _shown(results: Results, numbers: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"Method": [label(method) for method in numbers["method"]]})
    shown["changed"] = [text or "–" for text in numbers["change"]]
    shown[f"pass@{results.k}"] = render.show(numbers["pass@K"], render.share)
    shown["95 % interval"] = render.pairs(numbers, "low", "high", render.share)
    if "difference" in numbers:
        gaps = zip(render.show(numbers["difference"], render.signed), numbers["mark"].fillna(""), strict=True)
        shown[f"minus {label(TARGET)}"] = [gap + stars for gap, stars in gaps]
        shown["interval of the difference"] = render.pairs(numbers, "difference_low", "difference_high", render.signed)
        shown["p (Holm)"] = render.show(numbers["p_holm"], render.p_value)
    for name, title, form in (
        ("follow_rate", "plan followed", render.share),
        ("valid_rate", "valid tuples", render.share),
        ("duplicate_rate", "duplicate tuples", render.share),
        ("distinct_methods", "methods", render.hundredths),
        ("end_j", "J, end of training", render.share),
        ("end_r_out", "R_out, end of training", render.share),
    ):
        shown[title] = render.show(numbers[name], form)
    return shown.assign(seeds=render.show(numbers["seeds"], render.count))


def sweep_table(results: Results) -> Table | None:
    """T5: CPPO trained and evaluated at other K, each beside the ceilings of its K; None without such an arm."""
    methods = [method for method in results.sizes if method in SWEEP]
    if not methods:
        return None
    methods += [TARGET] if TARGET in results.sizes else []
    rows = []
    for method in sorted(methods, key=lambda method: results.sizes[method]):
        row = _measures(results, method)
        if (closed := results.ceilings_at(results.sizes[method])) is not None:
            row |= {name: float(closed[name]) for name in ("independent", "coordinated")}
            row |= {"share": row["pass@K"] / row["coordinated"], "above": row["pass@K"] - row["independent"]}
        rows.append(row)
    numbers = pd.DataFrame(rows)
    shown = pd.DataFrame({"Method": [label(method) for method in numbers["method"]]})
    for name, title, form in (
        ("k", "K", render.count),
        ("pass@1", "pass@1", render.share),
        ("pass@K", "pass@K", render.share),
    ):
        shown[title] = render.show(numbers[name], form)
    shown["95 % interval"] = render.pairs(numbers, "low", "high", render.share)
    for name, title, form in (
        ("independent", "independent ceiling", render.share),
        ("above", "above it", render.signed),
        ("coordinated", "coordinated ceiling", render.share),
        ("share", "share of it", render.share),
        ("follow_rate", "plan followed", render.share),
        ("valid_rate", "valid tuples", render.share),
        ("distinct_methods", "methods", render.hundredths),
        ("planner_tokens", "planner tokens", render.tenths),
        ("seeds", "seeds", render.count),
    ):
        if name in numbers:
            shown[title] = render.show(numbers[name], form)
    caption = (
        f"{results.params.benchmark} ({results.params.split} split, profile {results.params.profile}). Each row is "
        "trained and evaluated at its own K, so rows are not comparable with each other but with the ceilings of their "
        f"K. Percentile bootstrap intervals, {results.params.resamples} resamples. {seeds_caveat([Cell('', results)])}"
    )
    return Table("T5_sweep", "Tuples of other sizes", caption, numbers, shown)
