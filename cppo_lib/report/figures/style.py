"""How the figures look: sizes and the parts that several of them share. `report.methods` says how a method is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from cppo_lib.report.methods import label, look
from cppo_lib.report.results import Results

COLUMN, PAGE = 4.6, 7.2  # widths in inches
DPI = 130
RC: Any = {  # Any: matplotlib types every key apart
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,
}
CEILINGS = {
    "independent": ("independent ceiling", (0, (4, 2))),
    "coordinated": ("coordinated ceiling", (0, (1, 1))),
}
VERDICT_STYLE = {  # grey level and hatch
    "AC": ("0.25", ""),
    "WA": ("0.85", ""),
    "TLE": ("0.70", "///"),
    "MLE": ("0.60", "..."),
    "OLE": ("0.95", "xxx"),
    "RE": ("0.55", "\\\\\\"),
    "CE": ("1.00", "|||"),
    "IE": ("0.10", "..."),
    "NA": ("1.00", ""),
}


@contextmanager
def canvas(
    rows: int, columns: int, width: float, height: float, *, sharex: bool = False
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure and its axes in the suite's style; closed, so that notebooks show it only once."""
    with mpl.rc_context(RC):
        size = (width, height)
        figure, grid = plt.subplots(rows, columns, figsize=size, sharex=sharex, layout="constrained", squeeze=False)
        yield figure, list(grid.ravel())
        plt.close(figure)


def by_method(methods: Sequence[str]) -> dict[str, Any]:
    """How seaborn tells methods apart that a column `method` names, as every figure does; no legend (see `legend`)."""
    looks = {method: look(method) for method in methods}
    return {
        "hue": "method",
        "style": "method",
        "hue_order": list(methods),
        "style_order": list(methods),
        "palette": {method: look.color for method, look in looks.items()},
        "markers": {method: look.marker for method, look in looks.items()},
        "legend": False,
    }


def legend(
    figure: Figure, methods: Sequence[str], results: Results | None = None, *, ncols: int = 2, points: bool = False
) -> None:
    """One legend above all panels: a line or a point for each method, and the ceilings of `results`."""
    handles = []
    for method in methods:
        style = look(method)
        drawn: Any = {"marker": style.marker, "ls": "none", "mec": "k", "mew": 0.4, "ms": 5.5}
        drawn = drawn if points else {"ls": style.ls, "lw": 1.8}
        handles.append(Line2D([], [], color=style.color, label=label(method), **drawn))
    if results is not None and results.ceilings is not None:
        handles += [Line2D([], [], color="k", ls=dashes, lw=1, label=title) for title, dashes in CEILINGS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), ncols))


def line(axes: Axes, x: ArrayLike, y: ArrayLike, method: str) -> None:
    """A method's line with its markers, and its entry for the legend."""
    style = look(method)
    axes.plot(x, y, style.marker, ls=style.ls, color=style.color, ms=6, label=label(method))


def seed_points(axes: Axes, x: ArrayLike, y: ArrayLike) -> None:
    """A small point for each seed."""
    axes.plot(x, y, ".", color="k", ms=3.5, mew=0, zorder=4, ls="none")


def big(axes: Axes, x: float, y: float, method: str) -> None:
    """The large marker of a method, with its entry for the legend."""
    style = look(method)
    size = 13 if style.marker == "*" else 8.5
    axes.plot(
        x, y, style.marker, color=style.color, mec="k", mew=0.8, ms=size, zorder=3, ls="none", label=label(method)
    )


def method_axis(axes: Axes, methods: Sequence[str], *, named: bool = True) -> None:
    """One row per method on the y axis, the first on top."""
    axes.set_yticks(range(len(methods)), [label(method) if named else "" for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def ceiling_lines(axes: Axes, results: Results, *, vertical: bool) -> None:
    """Both ceilings as lines, vertical ones with their names above; nothing where the optimum is unknown.

    The names of two lines that are close together start and end at their lines, since they would cover each other.
    """
    if results.ceilings is None:
        return
    close = float(results.ceilings["coordinated"]) - float(results.ceilings["independent"]) < 0.25
    for (name, (title, line)), side in zip(CEILINGS.items(), ("right", "left"), strict=True):
        value = float(results.ceilings[name])
        if not vertical:
            axes.axhline(value, color="k", ls=line, lw=1, zorder=1, label=title)
            continue
        axes.axvline(value, color="k", ls=line, lw=1, zorder=1)
        axes.annotate(
            f"{title} {value:.2f}".replace(" ceiling", "\nceiling"),
            (value, 1),
            ({"right": -3, "left": 3}[side] if close else 0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=side if close else "center",
            fontsize=7,
        )
