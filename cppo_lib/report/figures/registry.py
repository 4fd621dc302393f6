"""The paper's figures, drawn from attempt records and training metrics.

A figure is a function of `Results` and an entry of `FIGURES`, under the name of its files, with its caption and the
records it needs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cppo_lib.artefacts import store
from cppo_lib.report.figures.attempts import (
    fig1_headline,
    fig3_pass_at_k,
    fig4_diversity,
    fig5_terms,
    fig6_verdicts,
    fig7_coverage,
    fig8_groups,
    fig10_ablations,
    has_groups,
)
from cppo_lib.report.figures.style import DPI, RC
from cppo_lib.report.figures.training import fig2_training, fig9_gaming, has_gate, has_training
from cppo_lib.report.render import sidecar
from cppo_lib.report.results import Results

COLOURS = 128


@dataclass(frozen=True)
class Drawn:
    """A figure's maker, what its caption says about it, and whether records can be drawn so."""

    draw: Callable[[Results], Figure]
    caption: str
    possible: Callable[[Results], bool] = lambda _: True


FIGURES = {
    "fig1_headline": Drawn(
        fig1_headline,
        "pass@K of each method with its 95 % bootstrap interval (points below: single seeds) and "
        "the ceilings in closed form.",
    ),
    "fig2_training": Drawn(
        fig2_training,
        "Training on the train split: thin lines are seeds, thick lines their mean in a running "
        "window of a twelfth of the steps. Direct arms have no planner; their R_out counts each "
        "K consecutive samples as one member. Black lines are the ceilings.",
        has_training,
    ),
    "fig3_pass_at_k": Drawn(
        fig3_pass_at_k,
        "pass@k with 95 % bootstrap intervals (bands); points beside k = K: single seeds. I.i.d. methods: the unbiased "
        "estimate from all attempts on a problem. Tuples end at their K, for attempts of different tuples are never "
        "pooled; for k < K, the mean over the choices of k attempts of a tuple. Black lines are the ceilings for each "
        "k.",
    ),
    "fig4_diversity": Drawn(
        fig4_diversity,
        "Breadth against success: large markers are methods, small ones their groups of problems. "
        "Horizontal lines are the ceilings.",
    ),
    "fig5_terms": Drawn(
        fig5_terms,
        "What pass@K is made of: skill of the single attempt, slots that differ on purpose, and "
        "failures that avoid each other; 95 % bootstrap intervals. I.i.d. methods have skill only.",
    ),
    "fig6_verdicts": Drawn(fig6_verdicts, "Verdicts of the attempts."),
    "fig7_coverage": Drawn(
        fig7_coverage,
        "Which methods are tried: share of tuples (blocks of K i.i.d. attempts) with a program of "
        "the method that is right most often, second most often, and so on; bars are how often.",
        lambda results: results.params.benchmark == "crossroads",
    ),
    "fig8_groups": Drawn(
        fig8_groups,
        "pass@K by group of problems (their number in brackets), the hardest on top; 95 % bootstrap intervals of CPPO "
        "and of the baseline.",
        has_groups,
    ),
    "fig9_gaming": Drawn(
        fig9_gaming,
        "Signs of a reward that is met without what it stands for: a gate that rises while success does not, or above "
        "an independent check of what it accepts; repeated methods; programs that pass public tests only. Panels whose "
        "metric was not recorded are left out.",
        has_gate,
    ),
    "fig10_ablations": Drawn(
        fig10_ablations,
        "CPPO with one choice changed: pass@K with 95 % bootstrap intervals (points below: single seeds) and the "
        "ceilings, and the share of programs that follow their plan.",
        lambda results: bool(results.ablations),
    ),
}
ELSEWHERE = ("fig7_coverage",)
"""The figures that 07_strategy_diversity writes; 06_figures writes all others."""


def possible(results: Results) -> list[str]:
    """The figures that these records allow, in order."""
    return [name for name, figure in FIGURES.items() if figure.possible(results)]


def write_figure(name: str, folder: Path, results: Results) -> list[Path]:
    """Draw the figure called `name`; write `<name>.png`, `.pdf` and `.json`; return their paths.

    The files depend on the results alone: no dates or program versions in their metadata.
    """
    figure = FIGURES[name].draw(results)
    record = sidecar(name, f"{results.setting()}. {FIGURES[name].caption}", [results])
    origin = f"parameters {record['params_sha256']}"
    png = {"Software": None, "Title": name, "Description": origin}
    pdf = {"CreationDate": None, "Creator": None, "Producer": None, "Title": name, "Subject": origin}
    path = folder / name
    with mpl.rc_context(RC):
        return [
            _with_palette(store.write_figure(path.with_suffix(".png"), figure, dpi=DPI, metadata=png)),
            store.write_figure(path.with_suffix(".pdf"), figure, metadata=pdf),
            store.write_json(path.with_suffix(".json"), record),
        ]


def _with_palette(png: Path) -> Path:
    """The same picture in a third of the bytes: figures have few colours, and notebooks hold a copy of each.

    The palette covers all colours evenly. Pillow's default goes by how many pixels have one, and gives a small marker
    the colour of another method.
    """
    with Image.open(png) as picture:
        notes = PngInfo()
        for key in ("Title", "Description"):
            notes.add_text(key, str(picture.info[key]))
        small = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    save = functools.partial(small.save, format="PNG", optimize=True, dpi=(DPI, DPI), pnginfo=notes)
    return store.write_whole(png, save)
