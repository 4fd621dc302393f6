"""T2: the rows of the paper's result card and the cells of the authors' Table 1, published and ours.

Published figures come from `params/paper/published.yaml`, ours from the records of the main table's columns. Rows are
named in a few words; what each is taken to mean here is in `_MATCH`, and is ours: neither source defines them. A row of
the card that was not evaluated has a dash; such a cell of Table 1 is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.evaluation.estimators import score_table
from cppo_lib.report import render
from cppo_lib.report.methods import TARGET, label
from cppo_lib.report.render import Columns, Table
from cppo_lib.report.results import Results, model_label, settings
from cppo_lib.runs import config

Options = Mapping[str, Any]


def _whole_v6(options: Options) -> bool:
    return options.get("release") == "release_v6" and options.get("subset") is None


def _held_out(options: Options) -> bool:
    return options.get("release") == "v6" or str(options.get("subset")).startswith("held_out")


def _first_500(options: Options) -> bool:
    return str(options.get("subset")).startswith("first_500")


def _all_levels(options: Options) -> bool:
    return options.get("difficulty") is None


def _any(_: Options) -> bool:
    return True


_MATCH: dict[tuple[str, str], tuple[str, str, Callable[[Options], bool], str]] = {
    ("CodeContests", "official (val)"): ("code_contests", "valid", _any, ""),
    ("CodeContests", "test"): ("code_contests", "test", _any, ""),
    ("APPS", ""): ("apps", "test", _all_levels, ""),
    ("APPS", "test"): ("apps", "test", _all_levels, ""),
    ("APPS", "Introductory"): ("apps", "test", _any, "introductory"),
    ("LiveCodeBench-v6", ""): ("livecodebench", "test", _whole_v6, ""),
    ("LiveCodeBench-v6", "test"): ("livecodebench", "test", _whole_v6, ""),
    ("LiveCodeBench-v6", "held-out"): ("livecodebench", "test", _held_out, ""),
    ("LiveCodeBench-v6", "fixed 500-problem slice"): ("livecodebench", "test", _first_500, ""),
    ("LiveCodeBench", "output prediction"): ("livecodebench_output", "test", _any, ""),
}
"""Benchmark and variant of a row: our benchmark, split, options of its 01_data_prep, and group of problems."""


_COLUMNS: Columns = {
    "Benchmark": ("benchmark", str),
    "Variant": ("variant", str),
    "Method": ("method", label),
    "Metric": ("metric", lambda metric: metric or "–"),
    "Published": ("published", render.percent),
    "std over seeds": ("std", render.percent),
    "Published for": ("model", lambda model: model or "–"),
    "Ours": ("ours", render.percent),
    "95 % interval": (("low", "high"), render.percent),
    "Our model": ("our_model", model_label),
    "Problems": ("problems", render.count),
}


def card_table(results: Results) -> Table | None:
    """T2; None where none of its rows was evaluated."""
    published = config.load_published()
    rows = [
        {"source": "abstract", "model": cell.model, "benchmark": cell.benchmark, "variant": "", "method": cell.method}
        | {"metric": f"pass@{published.k}", "published": cell.pass_at_4}
        for cell in published.cells
    ]
    rows += [
        {"source": "card", "model": "", "benchmark": row.benchmark, "variant": row.variant, "method": TARGET}
        | {"metric": row.metric, "published": None if row.percent is None else row.percent / 100}
        for row in published.card
    ]
    table = [
        {"source": "table", "metric": f"pass@{published.k}", "published": cell.pass_at_4}
        | cell.model_dump(include={"model", "benchmark", "variant", "method", "std"})
        for cell in published.table.cells
    ]
    filled = [row | _ours(results, row, published.k) for row in rows]
    filled += [row for cell in table if "ours" in (row := cell | _ours(results, cell, published.k))]
    if not any("ours" in row for row in filled):
        return None
    ours = ["ours", "low", "high", "problems", "seeds", "our_model"]
    numbers = pd.DataFrame(filled).reindex(columns=[*rows[0], "std", *ours])
    commits = " and ".join(published.table.commits)
    caption = (
        f"In percent. Published: {published.paper}, its abstract and its result card, which names no model; and, with "
        f"a std over {published.table.seeds} training seeds, Table 1 of the README of the authors' code at {commits}, "
        f"which later versions have dropped. Ours: {settings(results.columns)}. The code execution success rate is "
        "taken as the share of accepted programs. What a variant means is our reading; a dash: not evaluated, or no "
        "figure on the card."
    )
    return Table("The paper's result card", caption, numbers, render.as_text(numbers, _COLUMNS), results.columns)


def _ours(results: Results, row: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Our score for a row, from the first column of the main table that fits it; empty where none does."""
    benchmark, split, fits, group = _MATCH[row["benchmark"], row["variant"]]
    for column in results.columns:
        if (column.params.benchmark, column.params.split) != (benchmark, split):
            continue
        known = row["method"] in column.methods and fits(_options(column))
        if not known or (row["model"] and model_label(row["model"]) != model_label(column.model)):
            continue
        attempts = column.of(row["method"])
        attempts = attempts[attempts["group"] == group] if group else attempts
        if attempts.empty:
            continue
        mean = column.interval(score_table(attempts, k=1 if row["metric"].startswith("code execution") else k))
        return {
            "ours": mean.estimate,
            "low": mean.low,
            "high": mean.high,
            "problems": mean.n_problems,
            "seeds": mean.n_seeds,
            "our_model": column.model,
        }
    return {}


def _options(column: Results) -> Options:
    """The options that the column's problems were prepared with."""
    summary = paths.runs_root() / column.params.profile / "01_data_prep" / column.params.benchmark / "summary.json"
    record = store.read_json(paths.require(summary, notebook="01_data_prep"))
    options: Options = record["provenance"]["params"]["options"]
    return options
