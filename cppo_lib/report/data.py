"""Tables and figures of a prepared benchmark, from the files that `cppo_lib.runs.stages.data_prep` writes.

They show what was kept (by difficulty and platform, with numbers of tests and lengths of statements), what was left out
and why, the exact files that were read, and one problem as a model sees it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from cppo_lib.artefacts import paths, store
from cppo_lib.data import decontaminate
from cppo_lib.data.problem import Problem
from cppo_lib.rollout.prompts import PromptStyle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DIFFICULTY = ("introductory", "easy", "interview", "medium", "competition", "hard", "harder", "hardest", "unrated")
OVERLAP = "in evaluation data"
"""The reason that stands for `overlap.csv` among those of `skipped.jsonl`."""
GREYS, LINES = ("0.25", "0.55", "0.75"), ("-", "--", ":")
"""Looks of the splits, of which no benchmark has more than three."""


@dataclass(frozen=True)
class Prepared:
    """What lies in the folder of a prepared benchmark.

    Attributes:
        summary: `summary.json`.
        problems: a row per problem: split, id, group, platform, date, mode, tests, public, statement (characters).
        skipped: a row per problem that the loader left out: split, id, reason, detail.
        overlap: a row per training problem that was removed, see `decontaminate.overlap_table`.
    """

    summary: dict[str, Any]
    problems: pd.DataFrame
    skipped: pd.DataFrame
    overlap: pd.DataFrame

    @property
    def splits(self) -> list[str]:
        """The prepared splits in the benchmark's order."""
        return list(self.summary["splits"])


def load(folder: Path) -> Prepared:
    """Read what `data_prep.prepare` wrote. Raises MissingArtefactError when it has not finished."""
    summary = store.read_json(paths.require(folder / "summary.json", notebook="01_data_prep"))
    rows = store.read_jsonl(store.checked(folder / "skipped.jsonl"))
    skipped = pd.DataFrame(rows, columns=["split", "id", "reason", "detail"])
    removed, overlap = folder / "overlap.csv", decontaminate.overlap_table([])
    if removed.exists():
        overlap = pd.read_csv(store.checked(removed), dtype={"id": str, "matched_id": str})
    return Prepared(summary, store.read_parquet(folder / "problems.parquet"), skipped, overlap)


# --- tables -----------------------------------------------------------------------------------


def overview(prepared: Prepared) -> pd.DataFrame:
    """A row per split: problems, tests, problems left out; contest dates and references judged where there are any."""
    rows, problems = {}, prepared.problems
    for split, facts in prepared.summary["splits"].items():
        dates = problems.loc[problems["split"] == split, "date"]
        accepted, judged = (facts["references"][count] for count in ("accepted", "judged"))
        rows[split] = {
            "problems": facts["problems"],
            "tests": facts["tests"],
            "left out": sum(facts["skipped"].values()) + facts["overlap"],
            "first date": min((day for day in dates if day), default=""),
            "last date": max(dates),
            "references accepted": f"{accepted} of {judged}" if judged else "",
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.loc[:, (table != "").any()]


def sources(prepared: Prepared) -> pd.DataFrame:
    """A row per file that was read: split, origin, file, revision, sha256 (in full) and rows; empty when none was."""
    columns = ["split", "origin", "file", "revision", "sha256", "rows"]
    return pd.DataFrame(prepared.summary["sources"], columns=columns)


def counts(prepared: Prepared, fact: str) -> pd.DataFrame:
    """Problems per value of a fact (`group`: the difficulty; `platform`, `mode`) and split, with a total.

    Empty when the benchmark does not say, that is, when the fact is empty for every problem.
    """
    known = prepared.problems[prepared.problems[fact] != ""]
    if known.empty:
        return pd.DataFrame(columns=prepared.splits)
    table = pd.crosstab(prepared.problems[fact], prepared.problems["split"])[prepared.splits]
    table = table.loc[sorted(table.index, key=_by_difficulty)].rename(index={"": "not known"})
    table.loc["total"] = table.sum()
    return table.rename_axis(index=None, columns=None)


def left_out(prepared: Prepared) -> pd.DataFrame:
    """Problems per reason and split, the most frequent reason first, and how many are kept; no row when all are."""
    removed = prepared.overlap.assign(split="train", reason=OVERLAP)
    reasons = pd.concat([prepared.skipped[["split", "reason"]], removed[["split", "reason"]]])
    if reasons.empty:
        return pd.DataFrame(columns=prepared.splits)
    table = pd.crosstab(reasons["reason"], reasons["split"]).reindex(columns=prepared.splits, fill_value=0)
    table = table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    table.loc["kept"] = [prepared.summary["splits"][split]["problems"] for split in prepared.splits]
    return table.rename_axis(index=None, columns=None)


def sizes(prepared: Prepared) -> pd.DataFrame:
    """Least, median, 90th percentile and most: tests per problem and characters per statement, for each split."""
    columns = {"tests": "tests per problem", "statement": "characters per statement"}
    grouped = prepared.problems.groupby("split", sort=False)[list(columns)]
    spread = {"least": 0.0, "median": 0.5, "90 %": 0.9, "most": 1.0}
    table = pd.concat({name: grouped.quantile(share) for name, share in spread.items()}, axis=1)
    table = table.swaplevel(axis=1)[list(columns)].rename(columns=columns)
    return table.reindex(prepared.splits).rename_axis(index=None).round().astype(int)


def failed_references(prepared: Prepared) -> pd.DataFrame:
    """Reference programs that the verifier did not accept: split, id, verdict, reason."""
    rows = [
        {"split": split, **fault}
        for split, facts in prepared.summary["splits"].items()
        for fault in facts["references"]["failed"]
    ]
    return pd.DataFrame(rows, columns=["split", "id", "verdict", "reason"])


def _by_difficulty(value: str) -> tuple[float, int, str]:
    """Order of the groups: those that begin with a number by it, then the difficulties, then "" for not known."""
    number = re.match(r"\d+", value)
    rank = DIFFICULTY.index(value) if value in DIFFICULTY else -1
    return (int(number[0]) if number else math.inf, rank if value else len(DIFFICULTY), value)


# --- figures ----------------------------------------------------------------------------------


def plot_counts(prepared: Prepared, fact: str = "group") -> Figure | None:
    """Bars: problems per value of a fact and split. None when the benchmark does not say."""
    table = counts(prepared, fact).drop(index="total", errors="ignore")
    return None if table.empty else _bars(table, "problems")


def plot_left_out(prepared: Prepared) -> Figure | None:
    """Bars: problems left out per reason and split. None when none is."""
    table = left_out(prepared).drop(index="kept", errors="ignore")
    return None if table.empty else _bars(table, "problems left out")


def plot_sizes(prepared: Prepared) -> Figure:
    """Histograms of tests per problem and characters per statement, a line per split, on logarithmic scales."""
    figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), sharey=True)
    drawn: dict[str, Any] = {"bins": 25, "log_scale": True, "stat": "proportion", "common_norm": False}
    drawn |= {"hue": "split", "hue_order": prepared.splits, "palette": list(GREYS[: len(prepared.splits)])}
    for axis, (fact, title) in zip(axes, (("tests", "tests per problem"), ("statement", "characters")), strict=True):
        sns.histplot(prepared.problems, x=fact, element="step", fill=False, legend=axis is axes[0], ax=axis, **drawn)
        for line, dashes in zip(reversed(axis.lines), LINES, strict=False):
            line.set_linestyle(dashes)
        axis.set(xlabel=title, ylabel="share of problems")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    sns.move_legend(axes[0], "best", title=None)
    for line, dashes in zip(axes[0].get_legend().get_lines(), LINES, strict=False):
        line.set_linestyle(dashes)
    return figure


def _bars(table: pd.DataFrame, label: str) -> Figure:
    """Horizontal stacked bars, the first row on top."""
    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.22 * len(table)))
    table.iloc[::-1].plot.barh(ax=axes, stacked=True, width=0.8, edgecolor="k", linewidth=0.5, color=list(GREYS))
    axes.set(xlabel=label, ylabel="")
    axes.grid(False, axis="y")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


# --- one problem ------------------------------------------------------------------------------


def example_prompts(problem: Problem, k: int) -> dict[str, str]:
    """What a model reads when the problem is put to it: `direct`, `planner` (k methods) and `solver`.

    crossroads is asked in the brief style of the tiny model. The others are asked in the instruct style; the marks that
    a model's own chat template adds around the message are left out.
    """
    style = PromptStyle("brief", None) if problem.source == "crossroads" else PromptStyle("instruct", _bare_template())
    return {
        "direct": style.direct(problem),
        "planner": style.planner(problem, k),
        "solver": style.solver(problem, "<one of the planner's methods>"),
    }


def _bare_template() -> PreTrainedTokenizerFast:
    # Here, because transformers loads torch, and most of what a data set's report shows needs neither.
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(BPE()),
        chat_template="{% for message in messages %}{{ message.content }}{% endfor %}",
    )


def example_tests(problem: Problem, most: int = 4) -> str:
    """The first tests of a problem, a line each, and the limits under which they run."""

    def short(text: str) -> str:
        line = " ".join(text[:200].split())
        return line if len(line) <= 60 and len(text) <= 200 else f"{line[:57]}..."

    lines = []
    for number, test in enumerate(problem.tests[:most], start=1):
        expected = f" -> {short(test.expected)}" if test.expected else ""  # asserts hold it themselves
        lines.append(f"test {number} ({test.visibility}): {short(test.input)}{expected}")
    if len(problem.tests) > most:
        lines.append(f"... and {len(problem.tests) - most} more")
    limits = f"{problem.cpu_limit_s:g} s and {problem.memory_mb} MiB"
    return "\n".join([*lines, f"{problem.mode} mode, at most {limits} per test"])
