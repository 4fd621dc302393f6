"""How the figures look: sizes, one look per method, and the parts that several figures share.

Methods keep one colour, marker and line style throughout, and are told apart in greyscale by
lightness and shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cppo_lib.report.results import LABELS, Results, label

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


@dataclass(frozen=True)
class Look:
    """How a method is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


LOOKS = {
    "direct": Look("#8c8c8c", "s", (0, (1, 1))),
    "direct_tuned": Look("#6e6e6e", "P", (0, (1, 2))),
    "untrained": Look("#a6c8a0", "h", (0, (2, 2))),
    "plan_then_solve": Look("#bdbdbd", "D", (0, (3, 1, 1, 1))),
    "sft": Look("#5ab4ac", "v", (0, (5, 2))),
    "grpo": Look("#f0a030", "^", (0, (2, 1))),
    "pkpo": Look("#3a78b5", "o", (0, (4, 1))),
    "cppo": Look("#7b1e3a", "*", "solid"),
}
OTHERS = (
    Look("#444444", "X", (0, (1, 3))),
    Look("#c49a6c", "<", (0, (3, 2))),
    Look("#8fa8c8", ">", (0, (6, 2))),
    Look("#556b2f", "p", (0, (3, 1, 1, 1, 1, 1))),
    Look("#b07aa1", "d", (0, (1, 1))),
    Look("#d9d9d9", "8", (0, (2, 2))),
)
"""For methods beyond those above, in turn."""
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
}


def look(method: str) -> Look:
    """The look of a method; methods without one of their own take turns."""
    if method in LOOKS:
        return LOOKS[method]
    names = [name for name in LABELS if name not in LOOKS]
    return OTHERS[(names.index(method) if method in names else 0) % len(OTHERS)]


@contextmanager
def canvas(
    rows: int, columns: int, width: float, height: float, *, sharex: bool = False
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure and its axes in the suite's style; closed, so that notebooks show it only once."""
    with mpl.rc_context(RC):
        figure, grid = plt.subplots(
            rows,
            columns,
            figsize=(width, height),
            sharex=sharex,
            layout="constrained",
            squeeze=False,
        )
        yield figure, list(grid.ravel())
        plt.close(figure)


def line(axes: Axes, x: ArrayLike, y: ArrayLike, method: str) -> None:
    """A method's line with its markers, and its entry for the legend."""
    style = look(method)
    axes.plot(x, y, style.marker, ls=style.line, color=style.color, ms=6, label=label(method))


def seed_points(axes: Axes, x: ArrayLike, y: ArrayLike) -> None:
    """A small point for each seed."""
    axes.plot(x, y, ".", color="k", ms=3.5, mew=0, zorder=4, ls="none")


def big(axes: Axes, x: float, y: float, method: str, *, labelled: bool = True) -> None:
    """The large marker of a method, with its entry for the legend."""
    style = look(method)
    size = 13 if style.marker == "*" else 8.5
    axes.plot(x, y, style.marker, color=style.color, mec="k", mew=0.8, ms=size, zorder=3,
              ls="none", label=label(method) if labelled else None)  # fmt: skip


def method_axis(axes: Axes, methods: Sequence[str], *, named: bool = True) -> None:
    """One row per method on the y axis, the first on top."""
    axes.set_yticks(range(len(methods)), [label(method) if named else "" for method in methods])
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def ceiling_lines(axes: Axes, results: Results, *, vertical: bool) -> None:
    """Both ceilings as lines, named beside vertical ones; nothing where the optimum is unknown."""
    for name, (title, line) in CEILINGS.items():
        if results.ceilings is None:
            return
        value = float(results.ceilings[name])
        text = f"{title} {value:.2f}"
        if vertical:
            axes.axvline(value, color="k", ls=line, lw=1, zorder=1)
            axes.annotate(
                text.replace(" ceiling", "\nceiling"),
                (value, 1),
                (0, 3),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        else:
            axes.axhline(value, color="k", ls=line, lw=1, zorder=1, label=title)
