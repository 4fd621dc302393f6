"""Tables about the attempts themselves: T6 budget, T7 diversity, S1 verdicts, S2 methods that are tried.

Each is a function of `Results` and has a row for each method. T7 comes in three parts: how broad the attempts are, how
much of them is repetition, and what pass@K is made of.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.bootstrap import bootstrap_interval
from cppo_lib.evaluation.decomposition import TERMS, decomposition
from cppo_lib.evaluation.diversity import diversity_summary, method_coverage
from cppo_lib.report import render
from cppo_lib.report.comparisons import draws
from cppo_lib.report.render import Table
from cppo_lib.report.results import Results, label

VERDICTS = ("AC", "WA", "TLE", "MLE", "OLE", "RE", "CE", "IE")
_Columns = Mapping[str, tuple[str, render.Form]]
_BREADTH: _Columns = {
    "distinct_methods": ("methods", render.hundredths),
    "da_methods": ("methods, DA@K", render.hundredths),
    "effective_methods": ("effective methods", render.hundredths),
    "hill_2_methods": ("inverse Simpson", render.hundredths),
    "distinct_programs": ("programs", render.hundredths),
    "da_programs": ("programs, DA@K", render.hundredths),
    "distinct_strategies": ("strategies named", render.hundredths),
    "vendi": ("Vendi", render.hundredths),
    "vendi_strategies": ("Vendi, strategies", render.hundredths),
    "ast_distance": ("AST distance", render.share),
    "opcode_distance": ("opcode distance", render.share),
}
_REPETITION: _Columns = {
    "valid_rate": ("valid tuples", render.share),
    "follow_rate": ("plan followed", render.share),
    "duplicate_rate": ("duplicate tuples", render.share),
    "duplicate_program_rate": ("repeated programs", render.share),
    "same_idea_rate": ("pairs, same idea", render.share),
    "wasted_attempt_rate": ("wasted attempts", render.share),
    "waste_rate": ("waste where all fail", render.share),
}
_COUNTED = ("hill_0_methods", "hill_1_programs", "hill_2_programs", "vendi_ast", "vendi_opcodes", "strategy_distance")
"""What the file of T7 holds beside the columns that are shown."""


def budget_table(results: Results) -> Table:
    """T6: what K verified programs cost per problem, and what training cost in all."""
    rows = []
    for method in results.methods:
        attempts = results.of(method)
        blocks = len(attempts) / results.k
        calls = attempts["planner_calls"].sum() / blocks if "planner_calls" in attempts else None
        spent = attempts[["planner_tokens", "solver_tokens", "wall_s", "gen_s"]].sum() / blocks
        row = {
            "method": method,
            "planner_calls": calls,
            "planner_tokens": spent["planner_tokens"],
            "solver_tokens": spent["solver_tokens"],
            "programs": len(attempts) / blocks,
            "verifier_s": spent["wall_s"],
            "generate_s": spent["gen_s"],
            "wall_s": spent["wall_s"] + spent["gen_s"],
        }
        rows.append(row | _training_cost(results, method))
    numbers = pd.DataFrame(rows)
    shown = pd.DataFrame({"Method": [label(method) for method in results.methods]})
    for name, title, form in [
        ("planner_calls", "planner calls", render.tenths),
        ("planner_tokens", "planner tokens", render.tenths),
        ("solver_tokens", "solver tokens", render.tenths),
        ("programs", "programs", render.tenths),
        ("verifier_s", "verifier s", render.milli),
        ("generate_s", "generation s", render.milli),
        ("wall_s", "wall s", render.milli),
        ("train_programs", "training programs", render.count),
        ("train_tokens", "training tokens", render.count),
        ("train_wall_s", "training wall s", render.count),
    ]:
        if name in numbers and numbers[name].notna().any():
            shown[title] = render.show(numbers[name], form)
    caption = (
        f"{results.setting()}. Per problem and {results.k} programs at evaluation (generation is a "
        "row's share of its batch, verification the wall time of the program's tests); training "
        "columns are means over seeds of a whole run."
    )
    return Table("T6_budget", "Budget of each method", caption, numbers, shown)


def training_means(results: Results, arm: str) -> dict[str, float]:
    """Means of an arm's metrics over the last tenth of its steps and all seeds; empty where it was not trained."""
    if not len(results.metrics) or arm not in set(results.metrics["arm"]):
        return {}
    steps = results.metrics[results.metrics["arm"] == arm]
    last = steps[steps["step"] > 0.9 * steps["step"].max()]
    means = last.drop(columns="arm").apply(pd.to_numeric, errors="coerce").mean()
    return {str(name): float(value) for name, value in means.items() if pd.notna(value)}


def _training_cost(results: Results, method: str) -> dict[str, float]:
    if method not in results.arms:
        return {}
    steps = results.metrics[results.metrics["arm"] == method]
    seeds = steps["seed"].nunique()
    total = steps[["planner_tokens", "solver_tokens", "programs", "wall_s"]].sum() / seeds
    return {
        "train_programs": total["programs"],
        "train_tokens": total["planner_tokens"] + total["solver_tokens"],
        "train_wall_s": total["wall_s"],
    }


def diversity_tables(results: Results) -> list[Table]:
    """T7: breadth of the K attempts, repetition and plan-following, and the coordination decomposition."""
    numbers = pd.DataFrame([{"method": method, **diversity_summary(results.of(method))} for method in results.methods])
    breadth = _with_labels(results, numbers, _BREADTH)
    repetition = _with_labels(results, numbers, _REPETITION)
    captions = [
        f"{results.setting()}. Different methods and programs among the K attempts of a tuple (block of K i.i.d. "
        "attempts), means over tuples. DA@K: the number expected among any K attempts on the problem, whatever their "
        "tuple; what the first column has beyond it is coordination. Effective methods and inverse Simpson: Hill "
        "numbers of order 1 and 2 of all attempts on a problem. Vendi: effective number of dissimilar programs, by the "
        "subtrees they share, or of strategies, by words. Distances are means over pairs of a tuple's programs.",
        f"{results.setting()}. Shares of tuples: valid (the gate's answer), duplicate (a method named twice). Shares "
        "of attempts: plan followed, program repeated within the tuple, wasted (could not add a success: a program "
        "again, or an idea that had failed). Shares of pairs: same idea; of failed tuples, same method or program. A "
        "dash: nobody judged.",
    ]
    everything = numbers.reindex(columns=["method", *_BREADTH, *_COUNTED])
    return [
        Table("T7_diversity", "Breadth of the attempts", captions[0], everything, breadth),
        Table(
            "T7_repetition",
            "Repetition and plan-following",
            captions[1],
            numbers.reindex(columns=["method", *_REPETITION]),
            repetition,
        ),
        decomposition_table(results),
    ]


def _with_labels(results: Results, numbers: pd.DataFrame, columns: _Columns) -> pd.DataFrame:
    shown = pd.DataFrame({"Method": [label(method) for method in results.methods]})
    for name, (title, form) in columns.items():
        shown[title] = render.show(numbers[name], form)
    return shown


def decomposition_table(results: Results) -> Table:
    """T7, last part: pass@K as skill, heterogeneity of slots and correlation of failures, with intervals."""
    rows = []
    for method in results.methods:
        row: dict[str, object] = {"method": method}
        if enough_tuples(results.of(method)):
            terms = decomposition(results.of(method))
            for term in (*TERMS, "observed"):
                mean = bootstrap_interval(terms[term].unstack("problem_id"), **draws(results))
                row |= {term: mean.estimate, f"{term}_low": mean.low, f"{term}_high": mean.high}
        rows.append(row)
    columns = [name + end for name in (*TERMS, "observed") for end in ("", "_low", "_high")]
    numbers = pd.DataFrame(rows).reindex(columns=["method", *columns]).astype(dict.fromkeys(columns, float))
    shown = pd.DataFrame({"Method": [label(method) for method in results.methods]})
    for term in (*TERMS, "observed"):
        title, form = (f"pass@{results.k}", render.share) if term == "observed" else (term, render.signed)
        ends = render.pairs(numbers, f"{term}_low", f"{term}_high", form)
        values = zip(render.show(numbers[term], form), ends, strict=True)
        shown[title] = ["–" if value == "–" else f"{value} {end}" for value, end in values]
    caption = (
        f"{results.setting()}. pass@K = skill (what K independent attempts of the same mean rate reach) + "
        "heterogeneity (slots that differ on purpose) + correlation (failures that avoid each other), with 95 % "
        "bootstrap intervals. I.i.d. methods have skill only, by definition. A dash: fewer than K tuples per problem."
    )
    return Table("T7_decomposition", "What pass@K is made of", caption, numbers, shown)


def enough_tuples(attempts: pd.DataFrame) -> bool:
    """Can the decomposition be estimated from these records of one method?"""
    if not bool(attempts["coordinated"].iloc[0]):
        return True
    tuples = attempts.groupby(["seed", "problem_id"])["tuple_index"].nunique()
    return bool(tuples.min() >= attempts["k"].iloc[0])


def verdict_table(results: Results) -> Table:
    """S1: share of attempts with each verdict."""
    shares = results.attempts.groupby("method")["verdict"].value_counts(normalize=True)
    numbers = shares.unstack().reindex(index=results.methods, columns=VERDICTS)
    numbers = numbers.fillna(0.0).rename_axis(columns=None).reset_index()
    numbers["cut"] = [results.cut_share(method) for method in results.methods]
    shown = pd.DataFrame({"Method": [label(method) for method in results.methods]})
    for column in (*VERDICTS, "cut"):
        shown[column] = render.show(numbers[column], render.percent)
    caption = (
        f"{results.setting()}. Percent of attempts: accepted, wrong answer, time, memory or output "
        "limit exceeded, runtime error, does not compile, error of the judge; and, whatever their verdict, programs "
        "that used all the tokens they may have (cut)."
    )
    return Table("S1_verdicts", "Verdicts of the attempts", caption, numbers, shown)


def coverage_table(results: Results) -> Table:
    """S2: how often a tuple tries the method that is right most often, second most often, ...

    Raises:
        ParameterError: the benchmark is not crossroads, whose p and q are known.
    """
    if results.params.benchmark != "crossroads":
        raise ParameterError("which method is right how often is known for crossroads only")
    world = pd.DataFrame(
        {"group": c.name, "program_method": c.family.methods[m].name, "p": c.p[m], "q": c.q[m],
         "rank": rank}
        for c in crossroads.contexts()
        for rank, m in enumerate(sorted(range(len(c.p)), key=lambda m: -c.p[m]), start=1)
    )  # fmt: skip
    world = world[world["group"].isin(results.attempts["group"])]
    numbers = world.groupby("rank")[["p", "q"]].mean()
    for method in results.methods:
        tried = method_coverage(results.of(method))
        merged = world.merge(tried, how="left", on=["group", "program_method"]).fillna(0.0)
        numbers[method] = merged.groupby("rank")["coverage"].mean()
    numbers = numbers.reset_index()
    shown = pd.DataFrame({"rank by p": render.show(numbers["rank"], render.count)})
    for name in numbers.columns[1:]:
        shown[label(name)] = render.show(numbers[name], render.hundredths)
    caption = (
        f"{results.setting()}. p: how often the method is right; q: its popularity in the corpus; "
        "then the share of tuples (blocks of K i.i.d. attempts) in which a program implements it. "
        "Means over families and clues, whose methods are ranked by p."
    )
    return Table("S2_coverage", "Methods that are tried", caption, numbers, shown)
