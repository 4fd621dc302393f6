"""Figures about training: curves for each role, and signs that a reward is met without what it stands for.

Each is a function of `Results`; `cppo_lib.report.figures.registry` lists them with their captions. A panel whose metric
no arm has is left out: records of older runs lack some.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lib.errors import MissingArtefactError
from cppo_lib.report.figures.style import PAGE, big, canvas, ceiling_lines, method_axis
from cppo_lib.report.methods import best_known, label, look
from cppo_lib.report.results import Results
from cppo_lib.report.tables.attempts import diversity

_SHARES = {
    "r_out",
    "j",
    "r_plan",
    "r_solver",
    "followed",
    "duplicate_rate",
    "distinct_methods",
    "public_only",
    "j_rules",
    "gate_precision",
}
_CURVES = {
    "r_out": r"both: $R_\mathrm{out}$, any attempt passes",
    "j": r"planner: $J$, tuple is valid",
    "r_plan": r"planner: reward",
    "r_solver": r"solver: attempts that pass",
    "followed": "solver: plan followed",
    "distinct_programs": "solver: programs per member",
    "planner_entropy": "planner: entropy, nats",
    "solver_entropy": "solver: entropy, nats",
}
COLUMNS = 3


def fig2_training(results: Results) -> Figure:
    """A panel for each metric and role: each seed a thin line, the smoothed mean a thick one."""
    metrics = _shown_metrics(results)
    panels = [name for name in _CURVES if _known(metrics, name)]
    with canvas(math.ceil(len(panels) / COLUMNS), COLUMNS, PAGE, 0.4 + 1.8 * math.ceil(len(panels) / COLUMNS)) as (
        figure,
        grid,
    ):
        for axes, name in zip(grid, panels, strict=False):
            _curves(axes, results, name, _CURVES[name])
            if name == "r_out":
                ceiling_lines(axes, results, vertical=False)
        _finish(figure, grid, len(panels), columns=COLUMNS)
    return figure


def fig9_gaming(results: Results) -> Figure:
    """Is a reward met without what it stands for? The gate against success and an independent check, repetition."""
    metrics = _shown_metrics(results)
    planned = [arm for arm in best_known(results.arms) if _known(metrics[metrics["arm"] == arm], "j")]
    panels = [
        name
        for name in ("j", "gate_precision", "distinct_methods", "duplicate_rate", "public_only")
        if _known(metrics, name)
    ]
    told = [method for method in results.focus if results.of(method)["strategy"].notna().any()]
    count = len(panels) + bool(told)
    with canvas(math.ceil(count / 2), 2, PAGE, 0.5 + 2.1 * math.ceil(count / 2)) as (figure, grid):
        for axes, name in zip(grid, panels, strict=False):
            if name == "j":
                _gate_against_success(axes, metrics, planned)
            elif name == "gate_precision":
                _gate_against_truth(axes, metrics, planned)
            elif name == "distinct_methods":
                _gate_against_check(axes, metrics, planned)
            else:
                titles = {"duplicate_rate": "tuples that repeat a method", "public_only": "pass public tests only"}
                _curves(axes, results, name, titles[name])
                axes.set_ylim(bottom=0)
                axes.autoscale(axis="y")
        if told:
            _repetition(grid[len(panels)], results, told)
        _finish(figure, grid, count, columns=2)
    return figure


def has_training(results: Results) -> bool:
    """Was any arm trained?"""
    return bool(results.arms)


def has_gate(results: Results) -> bool:
    """Was an arm with a gate trained?"""
    return bool(results.arms) and _known(results.metrics, "j")


def _known(metrics: pd.DataFrame, name: str) -> bool:
    return name in metrics and bool(metrics[name].notna().any())


def _shown_metrics(results: Results) -> pd.DataFrame:
    """Training metrics of the arms that panels show, so that none is drawn for a metric of others alone.

    Raises:
        MissingArtefactError: no arm was trained.
    """
    if not results.arms:
        profile = results.params.profile
        raise MissingArtefactError(
            f"no training metrics of profile {profile}: run notebooks/03_rl_training.ipynb first "
            f"(or make reproduce PROFILE={profile})"
        )
    return results.metrics[results.metrics["arm"].isin(best_known(results.arms))]


def _curves(axes: Axes, results: Results, name: str, title: str) -> None:
    for arm in best_known(results.arms):
        steps = results.metrics[results.metrics["arm"] == arm]
        if _known(steps, name):
            _curve(axes, steps, name, arm)
    axes.set_title(title, loc="left", fontsize=8)
    if name in _SHARES:
        axes.set_ylim(-0.02, 1.02)


def _curve(axes: Axes, steps: pd.DataFrame, name: str, arm: str) -> None:
    values, style = _by_seed(steps, name), look(arm)
    axes.plot(values.index, values, color=style.color, lw=0.5, alpha=0.5)
    axes.plot(values.index, _smooth(values), color=style.color, ls=style.line, lw=1.8, label=label(arm))


def _by_seed(steps: pd.DataFrame, name: str) -> pd.DataFrame:
    return steps.pivot(index="step", columns="seed", values=name).astype(float)


def _smooth(values: pd.DataFrame) -> pd.Series[float]:
    window = max(1, len(values) // 12)
    return values.mean(axis=1).rolling(window, center=True, min_periods=1).mean()


def _gate_against_success(axes: Axes, metrics: pd.DataFrame, arms: Sequence[str]) -> None:
    """The way of J and R_out through training, a point at the end of each seed."""
    for arm in arms:
        steps, style = metrics[metrics["arm"] == arm], look(arm)
        gate, outcome = (_by_seed(steps, name) for name in ("j", "r_out"))
        way = _smooth(gate), _smooth(outcome)
        axes.plot(*way, color=style.color, ls=style.line, lw=1.8, label=label(arm))
        axes.plot(way[0].iloc[0], way[1].iloc[0], "o", mfc="w", mec=style.color, ms=5)
        tenth = max(1, len(gate) // 10)
        axes.plot(gate.tail(tenth).mean(), outcome.tail(tenth).mean(), ".", color="k", ms=5)
    axes.set_title(r"$J$ against $R_\mathrm{out}$; ring: start, points: ends of seeds", loc="left", fontsize=8)
    axes.locator_params(nbins=4)
    axes.set_xlabel(r"$J$")
    axes.set_ylabel(r"$R_\mathrm{out}$")


def _gate_against_check(axes: Axes, metrics: pd.DataFrame, arms: Sequence[str]) -> None:
    """J beside the share of tuples whose programs are of K different methods, which no reward pays for."""
    for arm in arms:
        steps, style = metrics[metrics["arm"] == arm], look(arm)
        axes.plot(_smooth(_by_seed(steps, "j")), color=style.color, ls=style.line, lw=1.2)
        axes.plot(_smooth(_by_seed(steps, "distinct_methods")), color=style.color, ls=(0, (1, 1)), lw=1.8)
    axes.set_title(r"$J$ (thin), K methods in fact (dotted)", loc="left", fontsize=8)
    axes.set_ylim(-0.02, 1.02)


def _gate_against_truth(axes: Axes, metrics: pd.DataFrame, arms: Sequence[str]) -> None:
    """J and what its rules alone accept, beside the share of accepted tuples that are truly valid."""
    for arm in arms:
        steps, style = metrics[metrics["arm"] == arm], look(arm)
        for name, line in (("j", {"lw": 1.2}), ("j_rules", {"lw": 1.2, "ls": (0, (4, 2))})):
            if _known(steps, name):
                axes.plot(_smooth(_by_seed(steps, name)), color=style.color, **line)
        if _known(steps, "gate_precision"):
            precision = _smooth(_by_seed(steps, "gate_precision"))
            axes.plot(precision, color=style.color, ls=(0, (1, 1)), lw=1.8)
    axes.set_title(r"$J$ (thin), by its rules (dashed), precision (dotted)", loc="left", fontsize=8)
    axes.set_ylim(-0.02, 1.02)


def _repetition(axes: Axes, results: Results, methods: Sequence[str]) -> None:
    """Per tuple method: tuples that name a method twice, and programs that repeat another of their tuple."""
    for row, method in enumerate(methods):
        told = diversity(results, method)
        big(axes, told["duplicate_rate"], row, method, labelled=False)
        axes.plot(told["duplicate_program_rate"], row, "x", color="k", ms=6, zorder=4)
    method_axis(axes, methods)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_title("evaluated tuples that repeat a method (x: programs)", loc="left", fontsize=8, wrap=True)
    axes.set_xlabel("share")


def _finish(figure: Figure, grid: Sequence[Axes], used: int, *, columns: int) -> None:
    """Name the steps below panels with none of steps under them, hide unused panels, and put one legend on top."""
    for axes in grid[used:]:
        axes.set_axis_off()
    steps = [not axes.get_xlabel() for axes in grid[:used]]
    for number, axes in enumerate(grid[:used]):
        if steps[number] and not any(steps[number + columns :][:1]):
            axes.set_xlabel("training step")
    found: dict[str, Artist] = {}
    for axes in grid[:used]:
        found |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=min(len(found), 4))
