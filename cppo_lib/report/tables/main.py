"""T1 and S3: the main table with the marks of its comparisons, and the comparisons behind it.

The captions say what the comparisons could have found, and what the intervals leave out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from cppo_lib.artefacts import paths
from cppo_lib.evaluation.best_of import BestDifference
from cppo_lib.evaluation.bootstrap import Difference, Interval
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.evaluation.significance import significance_summary
from cppo_lib.report import render
from cppo_lib.report.comparisons import ALPHA, P_PER_INTERVAL, Comparisons, comparisons, detectable, row_of
from cppo_lib.report.methods import TARGET, is_ablation, label
from cppo_lib.report.render import Columns, Table
from cppo_lib.report.results import Results, settings

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


def main_table(results: Results) -> Table:
    """T1: pass@1 and pass@K of each method in each column, and the paired difference to the baseline.

    A single column is shown with a column for each number.
    """
    score = f"pass@{results.k}"
    each = [_numbers(results, number) for number in range(len(results.columns))]
    shown = _alone(results.columns[0], each[0]) if len(each) == 1 else _side_by_side(results.columns, each)
    numbers = pd.concat(each, ignore_index=True)
    kept = numbers.assign(model=numbers["model"].map(paths.show_model))
    return Table(f"{score} under {results.k} verified attempts", _caption(results), kept, shown, results.columns)


def _numbers(results: Results, number: int) -> pd.DataFrame:
    column, found, rows = results.columns[number], comparisons(results), []
    score = f"pass@{column.k}"
    for method in column.methods:
        interval = column.interval(column.scores[method])
        row = {
            "method": method,
            "kind": "coordinated" if column.of(method)["coordinated"].iloc[0] else "i.i.d.",
            "pass@1": score_table(column.of(method), k=1).mean_score(),
            score: interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }
        if gap := found.gaps.get((number, method)):
            row |= row_of(gap, found.adjusted[number, method])
        rows.append(row | {"problems": interval.n_problems, "seeds": interval.n_seeds})
    if column.ceilings is not None:
        for name in CLOSED_FORMS:
            value = column.ceilings[name.removeprefix("closed_form.")]
            rows.append({"method": name, "kind": "closed form", score: value})
    return pd.DataFrame(rows).assign(model=column.model, benchmark=column.params.benchmark, split=column.params.split)


def _row_label(method: str) -> str:
    return CLOSED_FORMS.get(method, label(method))


def _alone(column: Results, numbers: pd.DataFrame) -> pd.DataFrame:
    score = f"pass@{column.k}"
    first: Columns = {
        "Method": ("method", _row_label),
        "pass@1": ("pass@1", render.share),
        score: (score, render.share),
        "95 % interval": (("low", "high"), render.share),
    }
    return beside_gaps(numbers, first, str(column.baseline), {"seeds": ("seeds", render.count)})


def beside_gaps(numbers: pd.DataFrame, first: Columns, base: str, last: Columns) -> pd.DataFrame:
    """Columns as text, with those of the comparison with `base` between them, if there is one."""
    title = f"minus {label(base)}"
    between: Columns = {
        title: ("difference", render.signed),
        "interval of the difference": (("difference_low", "difference_high"), render.signed),
        "p (Holm)": ("p_holm", render.p_value),
    }
    shown = render.as_text(numbers, {**first, **between, **last})
    return shown.assign(**{title: shown[title] + numbers["mark"].fillna("")}) if title in shown else shown


def _side_by_side(columns: Sequence[Results], each: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows are methods; each column has score, interval and mark of the difference."""
    methods = list(dict.fromkeys(method for numbers in each for method in numbers["method"]))
    shown = pd.DataFrame({"Method": [_row_label(method) for method in methods]})
    for column, numbers in zip(columns, each, strict=True):
        rows = numbers.set_index("method").reindex(methods)
        scores = pd.Series(render.show(rows[f"pass@{column.k}"], render.share), index=rows.index)
        marked = scores + rows["mark"].fillna("") if "mark" in rows else scores
        shown[column.title] = render.with_ends(marked, render.pairs(rows, "low", "high", render.share))
    return shown


# --- captions ---------------------------------------------------------------------------------------------------------


def _caption(results: Results) -> str:
    columns = results.columns
    seeded = " and seeds" if any(len(scores) > 1 for scores in columns[0].scores.values()) else ""
    parts = [
        f"{settings(columns)}. Percentile bootstrap over problems{seeded}, paired for "
        f"differences, {results.params.resamples} resamples ({P_PER_INTERVAL} times as many for p-values). "
        f"pass@{results.k} of i.i.d. methods is the unbiased estimator from all attempts on a problem, that of "
        "coordinated methods the share of tuples with a success.",
        seeds_caveat(columns),
        cut_caveat(columns),
        training_caveat(columns),
        *_comparison_sentences(results),
        _left_out(columns),
    ]
    return " ".join(part for part in parts if part)


def seeds_caveat(columns: Sequence[Results]) -> str:
    """What the intervals leave out because there are few seeds."""
    trained = max(len(scores) for results in columns for scores in results.scores.values())
    if trained == 1:
        return "One seed: the intervals leave out how much training runs differ."
    if trained < FEW_SEEDS:
        return f"With {trained} seeds, intervals of trained methods cover about 80 % where seeds differ much."
    return ""


def cut_caveat(columns: Sequence[Results]) -> str:
    """Whether the limit on tokens cut programs, and how many; nothing where it hardly did."""
    each = [(results, method) for results in columns for method in results.methods]
    shares = [results.cut_share(method) for results, method in each]
    if max(shares, default=0.0) < HARDLY:
        return ""
    limits = {limit for results, method in each for limit in results.of(method)["program_limit"].unique()}
    allowed = " or ".join(map(str, sorted(limits)))
    return (
        f"A program may have {allowed} tokens: {span(shares)} of a method's programs used them all. "
        "These may be unfinished, and scores higher with more room (S1)."
    )


def training_caveat(columns: Sequence[Results]) -> str:
    """How many problems RL could draw, and how often it drew one; nothing where no run says so."""
    each = [(results.trained_on, arm) for results in columns for arm in results.arms]
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


def _comparison_sentences(results: Results) -> list[str]:
    found, columns = comparisons(results), results.columns
    if not found.gaps:
        return []
    bases = dict.fromkeys(label(column.baseline) for column in columns if column.baseline)
    gaps = found.gaps.values()
    effects = [detectable(gap) for gap in gaps]
    strict = [detectable(gap, found.first_step) for gap in gaps]
    marked = any(gap.p_value < ALPHA or not gap.tests_agree(ALPHA) for gap in gaps)
    sentences = [
        f"Differences are to {' or '.join(bases)}, fixed in advance; Holm's adjustment is over "
        f"{len(found.gaps)} comparisons.",
        _MARKS if marked else "",
        f"Found with 80 % power: differences of {span(effects)}, as the first of all by Holm {span(strict)}.",
    ]
    for number, best in found.best.items():
        where = f" ({columns[number].title})" if len(columns) > 1 else ""
        sentences.append(
            f"{label(TARGET)} minus the best other method{where}, {label(best.best)} on these records, the choice "
            f"taken inside the bootstrap: {in_words(best, render.signed)}, {render.p_in_words(best.p_value)}."
        )
    cppo = [gap for (_, method), gap in found.gaps.items() if method == TARGET]
    if len(cppo) > 1:
        summary = significance_summary([gap.p_value for gap in cppo], ALPHA, differences=[gap.estimate for gap in cppo])
        sentences.append(f"{label(TARGET)} is {summary} over these cells.")
    return sentences


def in_words(interval: Interval, form: render.Form = render.share) -> str:
    """An estimate with its interval."""
    return f"{form(interval.estimate)} [{form(interval.low)}, {form(interval.high)}]"


def span(values: Sequence[float], form: render.Form = render.share) -> str:
    """From the least to the greatest number; a dash where there is none."""
    known = [value for value in values if not math.isnan(value)]
    ends = [form(value) for value in (min(known), max(known))] if known else ["–"]
    return " to ".join(dict.fromkeys(ends))


def _left_out(columns: Sequence[Results]) -> str:
    odd = [
        f"{label(method)} (K={size})"
        for results in columns
        for method, size in results.sizes.items()
        if size != results.k and not is_ablation(method)
    ]
    return f"Not here, because of another K: {', '.join(odd)}." if odd else ""


# --- the comparisons --------------------------------------------------------------------------------------------------


def comparison_table(results: Results) -> Table | None:
    """S3: every comparison of T1 with both tests, one- and two-sided, and the effect that it could have found."""
    columns, found = results.columns, comparisons(results)
    rows = [_comparison_row(columns[number], number, method, found) for number, method in found.gaps]
    rows += [_row(columns[number], TARGET, "", best) for number, best in found.best.items()]
    if not rows:
        return None
    numbers = pd.DataFrame(rows)
    shown = render.as_text(
        numbers,
        {
            "Cell": ("cell", str),
            "Method": ("method", label),
            "against": ("against", lambda name: label(name) if name else "best of all others"),
            "difference": ("difference", render.signed),
            "95 % interval": (("low", "high"), render.signed),
            "p": ("p", render.p_value),
            "one-sided p": ("p_one_sided", render.p_value),
            "p (Holm)": ("p_holm", render.p_value),
            "second p": ("second_p", render.p_value),
            "second test": ("second_test", str),
            "agree": ("agree", lambda agree: "yes" if agree else "NO"),
            "found with 80 % power": ("detectable", render.share),
            "first by Holm": ("detectable_first", render.share),
        },
    )
    caption = (
        f"{settings(columns)}. Paired differences of pass@{results.k}. p: two-sided bootstrap; one-sided: for a method "
        "that is not better. The second test, exact or a permutation of signs, ignores the variance between seeds. The "
        "best of all others is chosen inside the bootstrap. The last columns are the smallest true difference found "
        f"with 80 % power at 0.05, and at the level of Holm's first step, {found.first_step:.4f}."
    )
    shown = shown if len(columns) > 1 else shown.drop(columns="Cell")
    return Table("The comparisons behind the main table", caption, numbers, shown, columns)


def _row(column: Results, method: str, against: str, gap: Difference | BestDifference) -> dict[str, object]:
    return {
        "cell": column.title,
        "method": method,
        "against": against,
        "difference": gap.estimate,
        "low": gap.low,
        "high": gap.high,
        "p": gap.p_value,
        "p_one_sided": gap.p_one_sided,
    }


def _comparison_row(column: Results, number: int, method: str, found: Comparisons) -> dict[str, object]:
    gap = found.gaps[number, method]
    return _row(column, method, str(column.baseline), gap) | {
        "p_holm": found.adjusted[number, method],
        "second_test": gap.second_test,
        "second_p": gap.second_p,
        "agree": gap.tests_agree(ALPHA),
        "detectable": detectable(gap),
        "detectable_first": detectable(gap, found.first_step),
    }
