"""Tables about the attempts themselves: T6 budget, T7 diversity, S1 verdicts, S2 methods that are tried, S4 pooled.

Each has a row for each method. T7 comes in three parts: how broad the attempts are, how much of them is repetition, and
what pass@K is made of.
"""

from __future__ import annotations

import functools

import pandas as pd

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import ParameterError
from cppo_lib.evaluation import estimators
from cppo_lib.evaluation.decomposition import TERMS, decomposition
from cppo_lib.evaluation.diversity import diversity_summary, method_coverage
from cppo_lib.evaluation.estimators import KEY, LADDER
from cppo_lib.report import render
from cppo_lib.report.methods import label
from cppo_lib.report.render import Columns, Table
from cppo_lib.report.results import Results
from cppo_lib.reward.plan_following import UNMADE

VERDICTS = ("AC", "WA", "TLE", "MLE", "OLE", "RE", "CE", "IE")
"""The verifier's, in the order in which they are shown; UNMADE follows where it occurs."""
_METHOD: Columns = {"Method": ("method", label)}
_BUDGET: Columns = {
    "planner calls": ("planner_calls", render.tenths),
    "planner tokens": ("planner_tokens", render.tenths),
    "solver tokens": ("solver_tokens", render.tenths),
    "programs": ("programs", render.tenths),
    "verifier s": ("verifier_s", render.share),
    "generation s": ("generate_s", render.share),
    "wall s": ("wall_s", render.share),
    "training programs": ("train_programs", render.count),
    "training tokens": ("train_tokens", render.count),
    "training wall s": ("train_wall_s", render.count),
}
_BREADTH: Columns = {
    "methods": ("distinct_methods", render.hundredths),
    "methods, DA@K": ("da_methods", render.hundredths),
    "effective methods": ("effective_methods", render.hundredths),
    "inverse Simpson": ("hill_2_methods", render.hundredths),
    "programs": ("distinct_programs", render.hundredths),
    "programs, DA@K": ("da_programs", render.hundredths),
    "strategies named": ("distinct_strategies", render.hundredths),
    "Vendi": ("vendi", render.hundredths),
    "Vendi, strategies": ("vendi_strategies", render.hundredths),
    "AST distance": ("ast_distance", render.share),
    "opcode distance": ("opcode_distance", render.share),
}
_COUNTED = ("hill_0_methods", "hill_1_programs", "hill_2_programs", "vendi_ast", "vendi_opcodes", "strategy_distance")
"""What the file of T7 holds beside the columns that are shown."""
_REPETITION: Columns = {
    "valid tuples": ("valid_rate", render.share),
    "plan followed": ("follow_rate", render.share),
    "duplicate tuples": ("duplicate_rate", render.share),
    "repeated programs": ("duplicate_program_rate", render.share),
    "pairs, same idea": ("same_idea_rate", render.share),
    "wasted attempts": ("wasted_attempt_rate", render.share),
    "waste where all fail": ("waste_rate", render.share),
}


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
    shown = render.as_text(numbers.dropna(axis="columns", how="all"), {**_METHOD, **_BUDGET})
    caption = (
        f"{results.setting()}. Per problem and {results.k} programs at evaluation (generation is a "
        "row's share of its batch, verification the wall time of the program's tests); training "
        "columns are means over seeds of a whole run."
    )
    return Table("Budget of each method", caption, numbers, shown, [results])


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


@functools.cache
def diversity(results: Results, method: str) -> dict[str, float]:
    """How different the method's attempts are, see `evaluation.diversity`."""
    return diversity_summary(results.of(method))


def breadth_table(results: Results) -> Table:
    """T7, first part: how many different methods and programs are among the K attempts."""
    about = (
        "Different methods and programs among the K attempts of a tuple (block of K i.i.d. attempts), means over "
        "tuples. DA@K: the number expected among any K attempts on the problem, whatever their tuple; what the first "
        "column has beyond it is coordination. Effective methods and inverse Simpson: Hill numbers of order 1 and 2 of "
        "all attempts on a problem. Vendi: effective number of dissimilar programs, by the subtrees they share, or of "
        "strategies, by words. Distances are means over pairs of a tuple's programs."
    )
    return _of_diversity(results, "Breadth of the attempts", about, _BREADTH, _COUNTED)


def repetition_table(results: Results) -> Table:
    """T7, second part: what is repeated, and how many programs follow their plan."""
    about = (
        "Shares of tuples: valid (the gate's answer), duplicate (a method named twice). Shares of attempts: plan "
        "followed, program repeated within the tuple, wasted (could not add a success: a program again, or an idea "
        "that had failed). Shares of pairs: same idea; of failed tuples, same method or program. A dash: nobody judged."
    )
    return _of_diversity(results, "Repetition and plan-following", about, _REPETITION)


def _of_diversity(results: Results, title: str, about: str, columns: Columns, further: tuple[str, ...] = ()) -> Table:
    """A table of these measures of `diversity`; its file holds `further` ones."""
    numbers = pd.DataFrame([{"method": method, **diversity(results, method)} for method in results.methods])
    kept = numbers.reindex(columns=["method", *(name for name, _ in columns.values()), *further])
    shown = render.as_text(numbers, {**_METHOD, **columns})
    return Table(title, f"{results.setting()}. {about}", kept, shown, [results])


def decomposition_table(results: Results) -> Table:
    """T7, last part: pass@K as skill, heterogeneity of slots and correlation of failures, with intervals."""
    rows = []
    for method in results.methods:
        row: dict[str, object] = {"method": method}
        if enough_tuples(results.of(method)):
            terms = decomposition(results.of(method))
            for term in (*TERMS, "observed"):
                mean = results.interval(terms[term].unstack("problem_id"))
                row |= {term: mean.estimate, f"{term}_low": mean.low, f"{term}_high": mean.high}
        rows.append(row)
    columns = [name + end for name in (*TERMS, "observed") for end in ("", "_low", "_high")]
    numbers = pd.DataFrame(rows).reindex(columns=["method", *columns]).astype(dict.fromkeys(columns, float))
    shown = render.as_text(numbers, _METHOD)
    for term in (*TERMS, "observed"):
        title, form = (f"pass@{results.k}", render.share) if term == "observed" else (term, render.signed)
        ends = render.pairs(numbers, f"{term}_low", f"{term}_high", form)
        shown[title] = render.with_ends(render.show(numbers[term], form), ends)
    caption = (
        f"{results.setting()}. pass@K = skill (what K independent attempts of the same mean rate reach) + "
        "heterogeneity (slots that differ on purpose) + correlation (failures that avoid each other), with 95 % "
        "bootstrap intervals. I.i.d. methods have skill only, by definition. A dash: fewer than K tuples per problem."
    )
    return Table("What pass@K is made of", caption, numbers, shown, [results])


def enough_tuples(attempts: pd.DataFrame) -> bool:
    """Can the decomposition be estimated from these records of one method?"""
    if not bool(attempts["coordinated"].iloc[0]):
        return True
    tuples = attempts.groupby(["seed", "problem_id"])["tuple_index"].nunique()
    return bool(tuples.min() >= attempts["k"].iloc[0])


def verdicts_of(results: Results) -> tuple[str, ...]:
    """The verdicts to show: all of the verifier's, and that on attempts that were not made where there are some."""
    return (*VERDICTS, UNMADE) if (results.attempts["verdict"] == UNMADE).any() else VERDICTS


def verdict_table(results: Results) -> Table:
    """S1: share of attempts with each verdict."""
    shares = results.attempts.groupby("method")["verdict"].value_counts(normalize=True)
    verdicts = verdicts_of(results)
    numbers = shares.unstack().reindex(index=results.methods, columns=verdicts)
    numbers = numbers.fillna(0.0).rename_axis(columns=None).reset_index()
    numbers["cut"] = [results.cut_share(method) for method in results.methods]
    shown = render.as_text(numbers, {**_METHOD, **{name: (name, render.percent) for name in (*verdicts, "cut")}})
    unmade = ", not made because the plan could not be read" if UNMADE in verdicts else ""
    caption = (
        f"{results.setting()}. Percent of attempts: accepted, wrong answer, time, memory or output "
        f"limit exceeded, runtime error, does not compile, error of the judge{unmade}; and, whatever their verdict, "
        "programs that used all the tokens they may have (cut)."
    )
    return Table("Verdicts of the attempts", caption, numbers, shown, [results])


def pooled_table(results: Results) -> Table | None:
    """S4: pass@k as the authors' code has it for k above K; None where no method has several tuples a problem.

    Attempts of several tuples are pooled, which is not what T1 scores (`evaluation.estimators.PooledScores`). A rung
    that a method has too few attempts for is left empty.
    """
    pools = {method: int(results.of(method).groupby(KEY[:2]).size().min()) for method in results.methods}
    if max(pools.values()) <= results.k:
        return None
    rows = []
    for method, most in pools.items():
        attempts = results.of(method)
        scores = {f"pooled@{k}": estimators.pooled_table(attempts, k=k).mean_score() for k in LADDER if k <= most}
        rows.append({"method": method, "attempts": most, "coordinated": bool(attempts["coordinated"].iloc[0])} | scores)
    numbers = pd.DataFrame(rows)
    shown: Columns = {f"pooled, k={k}": (f"pooled@{k}", render.share) for k in LADDER}
    caption = (
        f"{results.setting()}. AS RELEASED: attempts of several tuples pooled; not the tuple estimand. The estimator "
        "for independent attempts is given all attempts on a problem, as in the authors' code. It is right for methods "
        "whose attempts are independent (last column); for tuples it is not comparable with T1, and nothing is tested "
        "on it. A dash: fewer than k attempts on a problem."
    )
    last: Columns = {"independent": ("coordinated", lambda coordinated: "no" if coordinated else "yes")}
    text = render.as_text(numbers, {**_METHOD, **shown, **last})
    return Table("Pooled ladder, as released", caption, numbers, text, [results])


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
    shares: Columns = {label(name): (name, render.hundredths) for name in numbers.columns[1:]}
    shown = render.as_text(numbers, {"rank by p": ("rank", render.count), **shares})
    caption = (
        f"{results.setting()}. p: how often the method is right; q: its popularity in the corpus; "
        "then the share of tuples (blocks of K i.i.d. attempts) in which a program implements it. "
        "Means over families and clues, whose methods are ranked by p."
    )
    return Table("Methods that are tried", caption, numbers, shown, [results])
