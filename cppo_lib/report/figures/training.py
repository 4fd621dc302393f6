"""Figures about training: curves for each role, and signs that a reward is met without what it stands for.

Each is a function of `Results`; `cppo_lib.report.figures.registry` lists them with their captions. A panel whose metric
no arm has is left out: records of older runs lack some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cppo_lib.errors import MissingArtefactError
from cppo_lib.report.figures.style import PAGE, big, canvas, ceiling_lines, legend, method_axis
from cppo_lib.report.methods import best_known, in_order, look
from cppo_lib.report.results import Results
from cppo_lib.report.tables.attempts import diversity

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
_SHARES = ("r_out", "j", "r_plan", "r_solver", "followed")
_GAMING = {
    "j": r"$J$ against $R_\mathrm{out}$; ring: start, points: ends of seeds",
    "gate_precision": r"$J$ (thin), by its rules (dashed), precision (dotted)",
    "distinct_methods": r"$J$ (thin), K methods in fact (dotted)",
    "duplicate_rate": "tuples that repeat a method",
    "public_only": "pass public tests only",
}
_DOTTED = (1, 1)
_BESIDE: dict[str, dict[str, Any]] = {
    "gate_precision": {"j": "", "j_rules": (4, 2), "gate_precision": _DOTTED},
    "distinct_methods": {"j": "", "distinct_methods": _DOTTED},
}
"""What is drawn beside J, by panel, and with which dashes: what its rules alone accept and the share of accepted tuples
that are truly valid, or the share of tuples whose programs are of K different methods, which no reward pays for."""


def fig2_training(results: Results) -> Figure:
    """A panel for each metric and role: each seed a thin line, the smoothed mean a thick one."""
    metrics = _shown_metrics(results)
    panels = [name for name in _CURVES if _known(metrics, name)]
    rows = math.ceil(len(panels) / 3)
    with canvas(rows, 3, PAGE, 0.4 + 1.8 * rows) as (figure, grid):
        for axes, name in zip(grid, panels, strict=False):
            _curves(axes, metrics, name)
            axes.set_title(_CURVES[name], loc="left", fontsize=8)
            if name in _SHARES:
                axes.set_ylim(-0.02, 1.02)
            if name == "r_out":
                ceiling_lines(axes, results, vertical=False)
        _name_steps(grid, len(panels), columns=3)
        legend(figure, best_known(results.arms), results, ncols=4)
    return figure


def fig9_gaming(results: Results) -> Figure:
    """Is a reward met without what it stands for? The gate against success and an independent check, repetition."""
    metrics = _shown_metrics(results)
    planned = metrics[metrics.groupby("arm")["j"].transform("count") > 0]
    panels = [name for name in _GAMING if _known(metrics, name)]
    told = [method for method in results.focus if results.of(method)["strategy"].notna().any()]
    count = len(panels) + bool(told)
    rows = math.ceil(count / 2)
    with canvas(rows, 2, PAGE, 0.5 + 2.1 * rows) as (figure, grid):
        for axes, name in zip(grid, panels, strict=False):
            if name == "j":
                _gate_against_success(axes, planned)
            elif name in _BESIDE:
                _beside_gate(axes, planned, _BESIDE[name])
            else:
                _curves(axes, metrics, name)
                axes.set_ylim(bottom=0)
                axes.autoscale(axis="y")
            axes.set_title(_GAMING[name], loc="left", fontsize=8)
        if told:
            _repetition(grid[len(panels)], results, told)
        _name_steps(grid, count, columns=2)
        legend(figure, best_known(results.arms), ncols=4)
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


def _by_arm(metrics: pd.DataFrame) -> dict[str, Any]:
    """How seaborn draws a line for each arm, CPPO's on top."""
    colors = {arm: look(arm).color for arm in in_order(metrics["arm"].unique())}
    return {"x": "step", "hue": "arm", "hue_order": list(colors), "palette": colors, "legend": False}


def _smooth(metrics: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Means over seeds in a running window of a twelfth of an arm's steps: columns arm, step and `names`."""
    means = metrics.astype(dict.fromkeys(names, float)).groupby(["arm", "step"], as_index=False)[list(names)].mean()
    for _, steps in means.groupby("arm"):
        window = steps[list(names)].rolling(max(1, len(steps) // 12), center=True, min_periods=1)
        means.loc[steps.index, list(names)] = window.mean()
    return means


def _curves(axes: Axes, metrics: pd.DataFrame, name: str) -> None:
    arms = _by_arm(metrics)
    values = metrics.astype({name: float})
    sns.lineplot(values, y=name, units="seed", estimator=None, lw=0.5, alpha=0.5, ax=axes, **arms)
    dashes = {arm: look(arm).dashes for arm in arms["palette"]}
    sns.lineplot(_smooth(metrics, [name]), y=name, style="arm", dashes=dashes, lw=1.8, ax=axes, **arms)
    axes.set(xlabel="", ylabel="")


def _gate_against_success(axes: Axes, metrics: pd.DataFrame) -> None:
    """The way of J and R_out through training, a point at the end of each seed."""
    for arm, way in _smooth(metrics, ["j", "r_out"]).groupby("arm"):
        style = look(str(arm))
        axes.plot(way["j"], way["r_out"], color=style.color, ls=style.ls, lw=1.8)
        axes.plot(way["j"].iloc[0], way["r_out"].iloc[0], "o", mfc="w", mec=style.color, ms=5)
        steps = metrics[metrics["arm"] == arm]
        last = steps[steps["step"].rank(method="dense", ascending=False) <= max(1, len(way) // 10)]
        ends = last.astype({"j": float, "r_out": float}).groupby("seed")[["j", "r_out"]].mean()
        axes.plot(ends["j"], ends["r_out"], ".", color="k", ms=5)
    axes.locator_params(nbins=4)
    axes.set(xlabel=r"$J$", ylabel=r"$R_\mathrm{out}$")


def _beside_gate(axes: Axes, metrics: pd.DataFrame, dashes: Mapping[str, Any]) -> None:
    """J and metrics that should go with it, a line each for every arm."""
    names = [name for name in dashes if name in metrics]
    widths = {name: 1.8 if dashes[name] == _DOTTED else 1.2 for name in names}
    drawn = {"style": "variable", "dashes": dict(dashes), "size": "variable", "sizes": widths, **_by_arm(metrics)}
    sns.lineplot(_smooth(metrics, names).melt(["arm", "step"], names), y="value", ax=axes, **drawn)
    axes.set(xlabel="", ylabel="", ylim=(-0.02, 1.02))


def _repetition(axes: Axes, results: Results, methods: Sequence[str]) -> None:
    """Per tuple method: tuples that name a method twice, and programs that repeat another of their tuple."""
    for row, method in enumerate(methods):
        told = diversity(results, method)
        big(axes, told["duplicate_rate"], row, method)
        axes.plot(told["duplicate_program_rate"], row, "x", color="k", ms=6, zorder=4)
    method_axis(axes, methods)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_title("evaluated tuples that repeat a method (x: programs)", loc="left", fontsize=8, wrap=True)
    axes.set_xlabel("share")


def _name_steps(grid: Sequence[Axes], used: int, *, columns: int) -> None:
    """Name the steps below panels with none of steps under them, and hide unused panels."""
    for axes in grid[used:]:
        axes.set_axis_off()
    steps = [not axes.get_xlabel() for axes in grid[:used]]
    for number, axes in enumerate(grid[:used]):
        if steps[number] and not any(steps[number + columns :][:1]):
            axes.set_xlabel("training step")
