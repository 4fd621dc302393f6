"""Figures about attempts: success, pass@k, breadth, what pass@K is made of, verdicts, groups and ablations.

Each is a function of `Results`; `cppo_lib.report.figures.registry` lists them with their captions. Figures with a line
for each method show `Results.focus`, those with a row for each show all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lib.evaluation.bootstrap import pass_at_k_curve
from cppo_lib.evaluation.decomposition import TERMS, decomposition
from cppo_lib.evaluation.diversity import tuple_table
from cppo_lib.report.figures.style import (
    CEILINGS,
    COLUMN,
    PAGE,
    VERDICT_STYLE,
    big,
    by_method,
    canvas,
    ceiling_lines,
    legend,
    line,
    method_axis,
    seed_points,
)
from cppo_lib.report.methods import TARGET, look
from cppo_lib.report.results import Results
from cppo_lib.report.tables.attempts import coverage_table, enough_tuples, verdicts_of

MOST_K = 8
"""pass@k is drawn up to here, where the records allow it."""
MOST_GROUPS = 16


def fig1_headline(results: Results) -> Figure:
    """pass@K of each method as a marker with its interval, a point for each seed, and the ceilings."""
    with canvas(1, 1, COLUMN, 0.7 + 0.33 * len(results.methods)) as (figure, (axes,)):
        _rows(axes, results, results.methods)
    return figure


def _rows(axes: Axes, results: Results, methods: Sequence[str]) -> None:
    """pass@K, a row for each method (marker, interval, the value at the right, its seeds below), and the ceilings."""
    for row, method in enumerate(methods):
        scores = results.scores[method]
        mean = results.interval(scores)
        axes.plot([mean.low, mean.high], [row, row], color=look(method).color, lw=2.5, zorder=2)
        big(axes, mean.estimate, row, method)
        if len(scores) > 1:
            seed_points(axes, scores.mean(axis=1), np.full(len(scores), row + 0.34))
        value = f"{mean.estimate:.2f}"
        axes.text(1.02, row, value, transform=axes.get_yaxis_transform(), va="center")
    method_axis(axes, methods)
    ceiling_lines(axes, results, vertical=True)
    axes.set(xlabel=f"{results.params.split} pass@{results.k}", xlim=(0, 1))


def fig3_pass_at_k(results: Results) -> Figure:
    """pass@k of each method for k = 1..8 (tuples: up to their K), with intervals and the ceilings for each k."""
    ks = list(range(1, MOST_K + 1))
    with canvas(1, 1, COLUMN, 3.6) as (figure, (axes,)):
        for method in results.focus:
            curve = pass_at_k_curve(
                results.of(method), ks=ks, resamples=results.params.resamples, seed=results.params.seed
            )
            style = look(method)
            low, high = ([getattr(interval, end) for interval in curve.values()] for end in ("low", "high"))
            axes.fill_between(list(curve), low, high, color=style.color, alpha=0.2, lw=0)
            line(axes, list(curve), [interval.estimate for interval in curve.values()], method)
            if len(seeds := results.scores[method].mean(axis=1)) > 1:
                seed_points(axes, np.full(len(seeds), results.k + 0.18), seeds)
        for name, (title, dashes) in CEILINGS.items():
            if results.hidden is not None:
                values = [float((results.ceilings_at(k) or {})[name]) for k in ks]
                axes.plot(ks, values, color="k", ls=dashes, lw=1, label=title)
        axes.set(xlabel="k, programs verified", ylabel=f"{results.params.split} pass@k", xticks=ks, ylim=(0, 1.02))
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def fig4_diversity(results: Results) -> Figure:
    """Distinct methods per tuple against pass@K: small points are groups, large ones methods."""
    groups = pd.concat([_by_group(results, method) for method in results.focus])
    with canvas(1, 1, COLUMN, 3.2) as (figure, (axes,)):
        small = {"s": 12, "alpha": 0.5, "linewidth": 0, **by_method(results.focus)}
        sns.scatterplot(groups, x="breadth", y="success", ax=axes, **small)
        for method, mean in groups.groupby("method", sort=False)[["breadth", "success"]].mean().iterrows():
            big(axes, mean["breadth"], mean["success"], str(method))
        ceiling_lines(axes, results, vertical=False)
        axes.set(xlabel=f"distinct methods among {results.k} attempts", xticks=range(1, results.k + 1))
        axes.set(ylabel=f"{results.params.split} pass@{results.k}", xlim=(0.9, results.k + 0.1), ylim=(0, 1.02))
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def _by_group(results: Results, method: str) -> pd.DataFrame:
    """Mean distinct methods and pass@K of each group of problems."""
    breadth = tuple_table(results.of(method)).groupby("problem_id")["distinct_methods"].mean()
    problems = pd.DataFrame({"breadth": breadth, "success": results.scores[method].mean(axis=0)})
    return problems.groupby(results.groups).mean().assign(method=method)


def fig5_terms(results: Results) -> Figure:
    """skill + heterogeneity + correlation = pass@K, one panel each, with intervals."""
    titles = ["skill", "+ heterogeneity", "+ correlation", f"= pass@{results.k}"]
    height = 0.9 + 0.26 * len(results.methods)
    with canvas(1, 4, PAGE, height, sharex=True) as (figure, grid):
        for row, method in enumerate(results.methods):
            if not enough_tuples(results.of(method)):
                grid[0].text(0.02, row, f"needs {results.k} tuples", va="center", fontsize=7)
                continue
            terms = decomposition(results.of(method))
            for axes, term in zip(grid, (*TERMS, "observed"), strict=True):
                mean = results.interval(terms[term].unstack("problem_id"))
                axes.barh(row, mean.estimate, color=look(method).color, height=0.65)
                axes.plot([mean.low, mean.high], [row, row], color="k", lw=1)
        for axes, title in zip(grid, titles, strict=True):
            axes.axvline(0, color="k", lw=0.8)
            axes.set_title(title, loc="left")
            method_axis(axes, results.methods, named=axes is grid[0])
            axes.locator_params(axis="x", nbins=4)
    return figure


def fig6_verdicts(results: Results) -> Figure:
    """Share of attempts with each verdict, stacked."""
    counts = pd.crosstab(results.attempts["method"], results.attempts["verdict"], normalize="index")
    present = [verdict for verdict in verdicts_of(results) if verdict in counts]
    with canvas(1, 1, COLUMN, 0.8 + 0.3 * len(results.methods)) as (figure, (axes,)):
        left = np.zeros(len(results.methods))
        for verdict in present:
            widths = counts.loc[results.methods, verdict].to_numpy()
            grey, hatch = VERDICT_STYLE[verdict]
            rows = np.arange(len(widths))
            axes.barh(rows, widths, left=left, color=grey, hatch=hatch, ec="k", lw=0.5, label=verdict)
            left += widths
        method_axis(axes, results.methods)
        axes.set(xlabel="share of attempts", xlim=(0, 1))
        figure.legend(loc="outside upper center", ncols=len(present))
    return figure


def fig7_coverage(results: Results) -> Figure:
    """Share of tuples that try a method, over the method's rank by p; p as bars."""
    table = coverage_table(results).numbers
    with canvas(1, 1, COLUMN, 3.2) as (figure, (axes,)):
        ranks, p = table["rank"].to_numpy(), table["p"].to_numpy()
        axes.bar(ranks, p, color="0.85", ec="0.4", lw=0.5, label="p, how often right")
        for method in results.focus:
            line(axes, ranks, table[method].to_numpy(), method)
        axes.set(xlabel="rank of the method by p", ylabel=f"share of tuples of {results.k} that try it", ylim=(0, 1.02))
        figure.legend(loc="outside upper center", ncols=2)
    return figure


def fig8_groups(results: Results) -> Figure:
    """pass@K by group of problems (difficulty, or family and clue), the hardest on top; intervals of two methods."""
    groups, focus = results.groups, results.focus
    scores = pd.DataFrame({method: results.scores[method].mean(axis=0).groupby(groups).mean() for method in focus})
    scores = scores.loc[scores.mean(axis=1).sort_values().index[:MOST_GROUPS]]
    names = list(scores.index)
    with canvas(1, 1, COLUMN, 1.2 + 0.3 * len(names)) as (figure, (axes,)):
        points = scores.assign(row=range(len(names))).melt("row", var_name="method", value_name="score")
        drawn = {"s": 34, "ec": "k", "linewidth": 0.4, "alpha": 0.9, "zorder": 3, **by_method(focus)}
        sns.scatterplot(points, x="score", y="row", ax=axes, **drawn)
        for method in (name for name in focus if name in (TARGET, results.baseline)):
            for row, name in enumerate(names):
                mean = results.interval(results.scores[method].loc[:, groups[groups == name].index])
                shift = 0.12 if method == TARGET else -0.12
                axes.plot([mean.low, mean.high], [row + shift] * 2, color=look(method).color, lw=1.8, zorder=2)
        sizes = groups.value_counts()
        axes.set_yticks(range(len(names)), [f"{name or 'all'} ({sizes[name]})" for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=f"{results.params.split} pass@{results.k}", ylabel="")
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6))
        legend(figure, focus, points=True)
    return figure


def has_groups(results: Results) -> bool:
    """Are the problems of more than one group?"""
    return results.attempts["group"].nunique() > 1


def fig10_ablations(results: Results) -> Figure:
    """CPPO and each ablation: pass@K, and how many programs follow their plan."""
    methods = [*([TARGET] if TARGET in results.methods else []), *results.ablations]
    with canvas(1, 2, PAGE, 0.9 + 0.3 * len(methods)) as (figure, (left, right)):
        _rows(left, results, methods)
        for row, method in enumerate(methods):
            followed = results.of(method)[["seed", "followed"]].dropna().astype(float)
            if len(followed):
                big(right, float(followed["followed"].mean()), row, method)
                by_seed = followed.groupby("seed")["followed"].mean()
                seed_points(right, by_seed, np.full(len(by_seed), row + 0.34))
        method_axis(right, methods, named=False)
        right.set(xlabel="share of programs that follow their plan", xlim=(-0.02, 1.02))
    return figure
