"""T3, T4 and T5: CPPO with one choice changed.

An ablation is an arm and a method of one name (`methods.is_ablation`). What is different about it is read from the
parameters that its training recorded, not from its name. CPPO itself is what all are compared with, fixed in advance;
Holm's adjustment is over the comparisons of a table. Arms of another K have no paired difference at one K: T5 sets each
beside the ceilings of its own K.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.report import render
from cppo_lib.report.comparisons import ALPHA, by_holm, detectable, difference, row_of
from cppo_lib.report.methods import CREDIT, GROUPING, LOSS, REWARD, SHARING, SIZE, TARGET, family, label
from cppo_lib.report.render import Columns, Table
from cppo_lib.report.results import Results
from cppo_lib.report.tables.attempts import diversity, training_means
from cppo_lib.report.tables.main import beside_gaps, seeds_caveat, span

_NAMING = {"arm", "seed", "profile"}
_FIRST: Columns = {"Method": ("method", label), "changed": ("change", lambda text: text or "–")}
_LAST: Columns = {
    "plan followed": ("follow_rate", render.share),
    "valid tuples": ("valid_rate", render.share),
    "duplicate tuples": ("duplicate_rate", render.share),
    "methods": ("distinct_methods", render.hundredths),
    "J, end of training": ("end_j", render.share),
    "R_out, end of training": ("end_r_out", render.share),
    "seeds": ("seeds", render.count),
}
_SWEEP: Columns = {
    "Method": ("method", label),
    "K": ("k", render.count),
    "pass@1": ("pass@1", render.share),
    "pass@K": ("pass@K", render.share),
    "95 % interval": (("low", "high"), render.share),
    "independent ceiling": ("independent", render.share),
    "above it": ("above", render.signed),
    "coordinated ceiling": ("coordinated", render.share),
    "share of it": ("share", render.share),
    "plan followed": ("follow_rate", render.share),
    "valid tuples": ("valid_rate", render.share),
    "methods": ("distinct_methods", render.hundredths),
    "planner tokens": ("planner_tokens", render.tenths),
    "seeds": ("seeds", render.count),
}


def reward_table(results: Results) -> Table | None:
    """T3: what the planner is paid for; None without an arm of the kind."""
    about = (
        "CPPO pays the planner J * R_out. J and R_out are means over the last tenth of training; valid tuples and "
        "duplicates are those of the evaluation."
    )
    return _beside_target(results, (REWARD,), "What the planner is paid for", about)


def solver_table(results: Results) -> Table | None:
    """T4: what a solver is paid for, compared with and told, and the loss; None without an arm of the kind."""
    about = (
        "Plan followed: share of programs that implement the method they were given. CPPO as released pays a solver "
        "for any success, so that it can pass more often by ignoring its method, which undoes the coordination."
    )
    families = (CREDIT, GROUPING, LOSS, SHARING)
    return _beside_target(results, families, "Solver credit, grouping, loss, weights and sharing", about)


def _beside_target(results: Results, families: tuple[str, ...], title: str, about: str) -> Table | None:
    methods = [method for method in results.ablations if family(method) in families]
    if not methods:
        return None
    known = TARGET in results.methods
    gaps = {method: difference(results, method, TARGET) for method in methods if known}
    adjusted = by_holm(gaps)
    rows = [_measures(results, TARGET)] if known else []
    for method in methods:
        compared = row_of(gaps[method], adjusted[method]) if known else {}
        compared.pop("second_test", None)
        rows.append(_measures(results, method) | compared)
    numbers = pd.DataFrame(rows)
    score: Columns = {
        f"pass@{results.k}": ("pass@K", render.share),
        "95 % interval": (("low", "high"), render.share),
    }
    caption = f"{results.setting()}. {about} {seeds_caveat([results])}"
    if gaps:
        effects = span([detectable(gap) for gap in gaps.values()])
        caption += (
            f" * p < {ALPHA}, ** after Holm's adjustment over {len(gaps)} comparisons, † the second test is on the "
            f"other side. Found with 80 % power: differences of {effects}."
        )
    shown = beside_gaps(numbers, {**_FIRST, **score}, TARGET, _LAST)
    return Table(title, caption, numbers, shown, [results])


def _measures(results: Results, method: str) -> dict[str, Any]:
    attempts = results.of(method)
    interval = results.interval(score_table(attempts))
    told = diversity(results, method)
    ends = training_means(results, method)
    return {
        "method": method,
        "change": _change(results, method),
        "k": results.sizes[method],
        "pass@1": score_table(attempts, k=1).mean_score(),
        "pass@K": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        **{name: told[name] for name in ("follow_rate", "valid_rate", "duplicate_rate", "distinct_methods")},
        "end_j": ends.get("j"),
        "end_r_out": ends.get("r_out"),
        "planner_tokens": float(attempts["planner_tokens"].sum() / (len(attempts) / results.sizes[method])),
        "seeds": interval.n_seeds,
    }


def _change(results: Results, method: str) -> str:
    """Parameters of the arm's training that differ from CPPO's, such as `credit: own`; empty without a summary."""
    own, base = (_trained_with(results, arm) for arm in (method, TARGET))
    keys = [key for key in own if base and key not in _NAMING and own[key] != base.get(key)]
    return ", ".join(f"{key}: {own[key]}" for key in keys)


def _trained_with(results: Results, arm: str) -> Mapping[str, Any]:
    summary = paths.runs_root() / results.params.profile / "03_rl_training" / f"{arm}.s0" / "summary.json"
    params: Mapping[str, Any] = store.read_json(summary)["provenance"]["params"] if summary.exists() else {}
    return params


def sweep_table(results: Results) -> Table | None:
    """T5: CPPO trained and evaluated at other K, each beside the ceilings of its K; None without such an arm."""
    methods = [method for method in results.sizes if family(method) == SIZE]
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
    caption = (
        f"{results.params.benchmark} ({results.params.split} split, profile {results.params.profile}). Each row is "
        "trained and evaluated at its own K, so rows are not comparable with each other but with the ceilings of their "
        f"K. Percentile bootstrap intervals, {results.params.resamples} resamples. {seeds_caveat([results])}"
    )
    return Table("Tuples of other sizes", caption, numbers, render.as_text(numbers, _SWEEP), [results])
