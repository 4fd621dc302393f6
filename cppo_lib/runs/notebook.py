"""What the notebooks share apart from their subject: quiet libraries and one look of small figures.

    from cppo_lib.runs import notebook

    notebook.setup()

Nothing in this module changes what a notebook computes beside the series. It imports nothing of the suite, so that
a notebook which trains does not depend on how tables and figures of the paper are drawn.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes

STYLE: Any = {  # Any: matplotlib types every key apart
    "figure.figsize": (4.6, 2.6),
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.fontsize": 8,
    # Greys that a printer keeps apart, and lines that differ in more than their grey.
    "axes.prop_cycle": cycler(
        color=["0.15", "0.55", "0.35", "0.7"], linestyle=["-", "--", "-.", ":"], marker=["o", "s", "^", "D"]
    ),
    "lines.markersize": 4,
}
CEILING_LINES = {"independent": (0, (4, 2)), "coordinated": (0, (1, 1))}


def setup() -> None:
    """Switch off progress bars and advice of the libraries that the notebook has imported; set the look of figures.

    torch computes on one thread unless OMP_NUM_THREADS says otherwise, as in the series: the bits are the same, and
    several threads that wait for each other are many times slower beside other work.

    Progress of the suite itself (`cppo_lib.artefacts.progress`) and errors are still shown. A library that is not there
    yet stays out: a notebook without a model should not spend seconds on importing one's libraries.
    """
    if transformers := sys.modules.get("transformers"):
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
    if (torch := sys.modules.get("torch")) and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
    logging.getLogger("trl").setLevel(logging.ERROR)
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # that `rollout_func` may change; the version is pinned
    mpl.rcParams.update(STYLE)


def ceiling_lines(axes: Axes, ceilings: Mapping[str, Any]) -> None:
    """Draw the `crossroads.ceilings` as horizontal lines; nothing where the mapping is empty."""
    for name, line in CEILING_LINES.items():
        if name in ceilings:
            axes.axhline(ceilings[name], color="k", lw=1, ls=line, marker="", label=f"{name} ceiling")
