"""T1, the main table: methods by cells, each with its interval and the mark of its comparison.

A cell is a base model on a split of a benchmark (`cppo_lib.report.cells`); `cppo_lib.report.comparisons` makes the
comparisons. The caption says what they could have found, and what the intervals leave out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from cppo_lib.artefacts import paths
from cppo_lib.evaluation.best_of import BestDifference
from cppo_lib.evaluation.bootstrap import bootstrap_interval
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.evaluation.significance import significance_summary
from cppo_lib.report import render
from cppo_lib.report.cells import Cell, settings
from cppo_lib.report.comparisons import ALPHA, P_PER_INTERVAL, TARGET, Comparisons, detectable, draws, mark
from cppo_lib.report.render import Table
from cppo_lib.report.results import ABLATIONS, Results, label

FEW_SEEDS = 5
"""From so many seeds on, an interval covers 90 % or more even where seeds differ much (`evaluation.bootstrap`)."""
HARDLY = 0.01
"""The share of programs cut by the limit on tokens from which on a caption says so."""
CLOSED_FORMS = {
    "closed_form.direct": "Base popularity, closed form",
    "closed_form.independent": "Independent ceiling, closed form",
    "closed_form.coordinated": "Coordinated ceiling, closed form",
}
_MARKS = "* p < 0.05; ** p < 0.05 after Holm's adjustment; † the second test (S3) is on the other side of 0.05."


def main_table(cells: Sequence[Cell], comparisons: Comparisons) -> Table:
    """T1: pass@1 and pass@K of each method in each cell, and the paired difference to the baseline.

    One cell has a column for each number; several have a column for each cell.
    """
    numbers = pd.concat([_numbers(n, cell, comparisons) for n, cell in enumerate(cells)], ignore_index=True)
    shown = _one_cell(cells[0].results, numbers) if len(cells) == 1 else _many_cells(cells, numbers)
    title = f"{_score(cells)} under {cells[0].results.k} verified attempts"
    kept = numbers.assign(model=numbers["model"].map(paths.show_model))
    return Table("T1_main", title, _caption(cells, comparisons), kept, shown)


def _score(cells: Sequence[Cell]) -> str:
    return f"pass@{cells[0].results.k}"


def _numbers(number: int, cell: Cell, comparisons: Comparisons) -> pd.DataFrame:
    results, score, rows = cell.results, f"pass@{cell.results.k}", []
    place = {"model": cell.model, "benchmark": results.params.benchmark, "split": results.params.split}
    for method in results.methods:
        interval = bootstrap_interval(results.scores[method], **draws(results))
        row = {
            "method": method,
            "kind": "coordinated" if results.of(method)["coordinated"].iloc[0] else "i.i.d.",
            "pass@1": score_table(results.of(method), k=1).mean_score(),
            score: interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }
        if gap := comparisons.gaps.get((number, method)):
            row |= {"difference": gap.estimate, "difference_low": gap.low}
            row |= {"difference_high": gap.high, "p": gap.p_value}
            row |= {"p_holm": comparisons.adjusted[number, method]}
            row |= {"second_test": gap.second_test, "second_p": gap.second_p}
            row |= {"mark": mark(gap, comparisons.adjusted[number, method]), "detectable": detectable(gap)}
        rows.append(row | {"problems": interval.n_problems, "seeds": interval.n_seeds})
    if results.ceilings is not None:
        for name in CLOSED_FORMS:
            value = results.ceilings[name.removeprefix("closed_form.")]
            rows.append({"method": name, "kind": "closed form", score: value})
    return pd.DataFrame(rows).assign(**place)


def _one_cell(results: Results, numbers: pd.DataFrame) -> pd.DataFrame:
    score = f"pass@{results.k}"
    shown = pd.DataFrame(
        {
            "Method": _row_labels(numbers["method"]),
            "pass@1": render.show(numbers["pass@1"], render.share),
            score: render.show(numbers[score], render.share),
            "95 % interval": render.pairs(numbers, "low", "high", render.share),
        }
    )
    if "difference" in numbers:
        gaps = zip(render.show(numbers["difference"], render.signed), numbers["mark"].fillna(""), strict=True)
        shown[f"minus {label(str(results.baseline))}"] = [gap + stars for gap, stars in gaps]
        ends = render.pairs(numbers, "difference_low", "difference_high", render.signed)
        shown["interval of the difference"] = ends
        shown["p (Holm)"] = render.show(numbers["p_holm"], render.p_value)
    return shown.assign(seeds=render.show(numbers["seeds"], render.count))


def _many_cells(cells: Sequence[Cell], numbers: pd.DataFrame) -> pd.DataFrame:
    """Rows are methods, columns cells: score, interval and mark of the difference."""
    score, methods = _score(cells), list(dict.fromkeys(numbers["method"]))
    shown = pd.DataFrame({"Method": _row_labels(methods)})
    for cell in cells:
        params = cell.results.params
        here = (numbers["model"] == cell.model) & (numbers["benchmark"] == params.benchmark)
        rows = numbers[here & (numbers["split"] == params.split)].set_index("method").reindex(methods)
        ends = render.pairs(rows, "low", "high", render.share)
        marks = rows["mark"].fillna("") if "mark" in rows else [""] * len(rows)
        parts = zip(render.show(rows[score], render.share), ends, marks, strict=True)
        shown[cell.title] = [value if end == "–" else f"{value}{stars} {end}" for value, end, stars in parts]
    return shown


def _row_labels(methods: Sequence[str] | pd.Series[str]) -> list[str]:
    return [CLOSED_FORMS.get(method, label(method)) for method in methods]


# --- captions ---------------------------------------------------------------------------------------------------------


def _caption(cells: Sequence[Cell], comparisons: Comparisons) -> str:
    first, score = cells[0].results, _score(cells)
    seeded = " and seeds" if any(len(scores) > 1 for scores in first.scores.values()) else ""
    parts = [
        f"{settings(cells)}. Percentile bootstrap over problems{seeded}, paired for "
        f"differences, {first.params.resamples} resamples ({P_PER_INTERVAL} times as many for p-values). {score} of "
        "i.i.d. methods is the unbiased estimator from all attempts on a problem, that of coordinated methods the "
        "share of tuples with a success.",
        seeds_caveat(cells),
        cut_caveat(cells),
        training_caveat(cells),
        *_comparison_sentences(cells, comparisons),
        _left_out(cells),
    ]
    return " ".join(part for part in parts if part)


def seeds_caveat(cells: Sequence[Cell]) -> str:
    """What the intervals leave out because there are few seeds."""
    trained = max(len(scores) for cell in cells for scores in cell.results.scores.values())
    if trained == 1:
        return "One seed: the intervals leave out how much training runs differ."
    if trained < FEW_SEEDS:
        return f"With {trained} seeds, intervals of trained methods cover about 80 % where seeds differ much."
    return ""


def cut_caveat(cells: Sequence[Cell]) -> str:
    """Whether the limit on tokens cut programs, and how many; nothing where it hardly did."""
    each = [(cell.results, method) for cell in cells for method in cell.results.methods]
    shares = [results.cut_share(method) for results, method in each]
    if max(shares, default=0.0) < HARDLY:
        return ""
    limits = {limit for results, method in each for limit in results.of(method)["program_limit"].unique()}
    allowed = " or ".join(map(str, sorted(limits)))
    return (
        f"A program may have {allowed} tokens: {span(shares)} of a method's programs used them all. "
        "These may be unfinished, and scores higher with more room (S1)."
    )


def training_caveat(cells: Sequence[Cell]) -> str:
    """How many problems RL could draw, and how often it drew one; nothing where no run says so."""
    each = [(cell.results.trained_on, arm) for cell in cells for arm in cell.results.arms]
    runs = [trained_on[arm] for trained_on, arm in each if arm in trained_on]
    if not runs:
        return ""
    draws, drawn_from, in_split = (
        span([run[key] for run in runs], render.count) for key in ("draws", "drawn_from", "in_split")
    )
    if all(run["drawn_from"] == run["in_split"] for run in runs):
        return f"RL made {draws} draws from the {in_split} problems of its training split."
    return (
        f"RL made {draws} draws from {drawn_from} of the {in_split} problems of its training split; the prompts of the "
        "others are too long (max_prompt_tokens)."
    )


def _comparison_sentences(cells: Sequence[Cell], comparisons: Comparisons) -> list[str]:
    if not comparisons.gaps:
        return []
    bases = dict.fromkeys(label(str(cell.results.baseline)) for cell in cells if cell.results.baseline)
    gaps = comparisons.gaps.values()
    effects = [detectable(gap) for gap in gaps]
    strict = [detectable(gap, comparisons.first_step) for gap in gaps]
    marked = any(gap.p_value < ALPHA or not gap.tests_agree(ALPHA) for gap in gaps)
    sentences = [
        f"Differences are to {' or '.join(bases)}, fixed in advance; Holm's adjustment is over "
        f"{len(comparisons.gaps)} comparisons.",
        _MARKS if marked else "",
        f"Found with 80 % power: differences of {span(effects)}, as the first of all by Holm {span(strict)}.",
        *(_best_sentence(cells, number, best) for number, best in comparisons.best.items()),
    ]
    cppo = [gap for (_, method), gap in comparisons.gaps.items() if method == TARGET]
    if len(cppo) > 1:
        summary = significance_summary([gap.p_value for gap in cppo], ALPHA, differences=[gap.estimate for gap in cppo])
        sentences.append(f"{label(TARGET)} is {summary} over these cells.")
    return sentences


def _best_sentence(cells: Sequence[Cell], number: int, best: BestDifference) -> str:
    where = f" ({cells[number].title})" if len(cells) > 1 else ""
    p = render.p_value(best.p_value)
    gap = f"{render.signed(best.estimate)} [{render.signed(best.low)}, {render.signed(best.high)}]"
    return (
        f"{label(TARGET)} minus the best other method{where}, {label(best.best)} on these records, the choice taken "
        f"inside the bootstrap: {gap}, "
        f"p {p if p.startswith('<') else f'= {p}'}."
    )


def span(values: Sequence[float], form: render.Form = render.share) -> str:
    """From the least to the greatest number; a dash where there is none."""
    known = [value for value in values if not math.isnan(value)]
    ends = [form(value) for value in (min(known), max(known))] if known else ["–"]
    return " to ".join(dict.fromkeys(ends))


def _left_out(cells: Sequence[Cell]) -> str:
    odd = [
        f"{label(method)} (K={size})"
        for cell in cells
        for method, size in cell.results.sizes.items()
        if size != cell.results.k and method not in ABLATIONS
    ]
    return f"Not here, because of another K: {', '.join(odd)}." if odd else ""
