"""The results in words: which claims of the paper's abstract hold in these records, by how much, and what they hang on.

Written from the records, sentence by sentence, as `reading.md` beside the tables. The abstract claims that under the
same budget of K programs CPPO beats direct sampling, planning baselines, planner-only SFT and pass@K-oriented RL, by
exploring jointly and under a gate that pays for valid tuples only. A claim holds here if the interval of the
difference lies above 0 and Holm's adjustment over all of them agrees. Which of CPPO's choices matter is read from its
ablations, where they were evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cppo_lib.artefacts import store
from cppo_lib.evaluation.bootstrap import Difference, bootstrap_interval
from cppo_lib.evaluation.decomposition import TERMS, decomposition
from cppo_lib.evaluation.diversity import judged_share
from cppo_lib.evaluation.estimators import pass_at_k
from cppo_lib.evaluation.significance import holm
from cppo_lib.report import render
from cppo_lib.report.cells import Cell
from cppo_lib.report.comparisons import ALPHA, TARGET, best_difference, detectable, difference, draws
from cppo_lib.report.results import CREDIT, GROUPING, REWARD, SHARING, SWEEP, Results, label
from cppo_lib.report.tables.attempts import enough_tuples
from cppo_lib.report.tables.main import HARDLY, cut_caveat, seeds_caveat, span, training_caveat

READING = "reading.md"
RIVALS: dict[str, tuple[str, ...]] = {
    "direct sampling": ("direct", "direct_tuned", "divsampling"),
    "planning baselines": (
        "plan_then_solve", "sequential", "verbalized", "ifg", "plansearch", "plansearch_lite", "untrained",
    ),
    "planner-only SFT": ("sft",),
    "RL for single programs": ("grpo", "dr_grpo", "grpo_entropy", "nsr", "w_reinforce", "unlikeliness"),
    "pass@K-oriented RL": ("pkpo", "pkpo_loo", "pkpo_annealed", "pass_at_k"),
}  # fmt: skip
"""What CPPO is compared with, in the abstract's words but for the fourth."""
CHOICES: dict[str, tuple[str, ...]] = {
    "the planner's reward and its gate": REWARD,
    "the solver's credit": CREDIT,
    "the grouping of solver rewards": GROUPING,
    "weights, shared parameters and the plan's text": SHARING,
}


def reading(results: Results) -> str:
    """The reading as Markdown.

    Raises:
        ParameterError: records that do not fit (`estimators.check_attempts`).
    """
    parts = [f"# What these results say\n\n{results.setting()}."]
    if TARGET not in results.methods:
        return f"{parts[0]}\n\nCPPO is not among the methods that were evaluated, so its claims cannot be checked.\n"
    parts += ["## Do the abstract's claims hold here?", _bullets(_claims(results))]
    parts += ["## Where does the difference come from?", _bullets(_sources(results))]
    parts += ["## Which choices does it depend on?", _bullets(_choices(results))]
    parts += ["## What this does not say", _bullets(_limits(results))]
    return "\n\n".join(parts) + "\n"


def write_reading(results: Results, folder: Path) -> Path:
    """Write `reading.md`."""
    return store.write_text(folder / READING, reading(results))


def _bullets(sentences: Iterator[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


# --- claims -----------------------------------------------------------------------------------------------------------


def _claims(results: Results) -> Iterator[str]:
    score = f"pass@{results.k}"
    mean = bootstrap_interval(results.scores[TARGET], **draws(results))
    ceiling, top = (float((results.ceilings or {}).get(name, math.nan)) for name in ("independent", "coordinated"))
    if math.isclose(ceiling, top):
        yield f"Both ceilings of these problems are {top:.3f}: they are too few, or K too small, to show coordination."
    elif results.ceilings is not None:
        verdict = "**Holds**" if mean.low > ceiling else "**Open**" if mean.high > ceiling else "**Does not hold**"
        above = (mean.estimate - ceiling) / (top - ceiling)
        way = f"{above:.0%} of the way from there to" if above > 0 else f"{ceiling - mean.estimate:.3f} below that;"
        yield (
            f"*Joint exploration reaches what no independent sampler can.* {verdict}: {score} of CPPO is "
            f"{_interval(mean.estimate, mean.low, mean.high)}, and no i.i.d. sampler can pass {ceiling:.3f}. CPPO is "
            f"{way} the coordinated ceiling{'' if above > 0 else ' is'} {top:.3f}."
        )
    others = [method for method in results.methods if method != TARGET]
    gaps = {method: difference(results, TARGET, method) for method in others}
    adjusted = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
    for name, rivals in RIVALS.items():
        if here := [method for method in rivals if method in gaps]:
            yield f"*CPPO beats {name} at the same budget.* {_beats(here, gaps, adjusted)}"
    if best := best_difference(results):
        yield (
            f"Against the best of all {len(others)} other methods ({label(best.best)}), the choice taken inside the "
            f"bootstrap: {_interval(best.estimate, best.low, best.high, sign=True)}, p {_p(best.p_value)}."
        )


def _beats(methods: Sequence[str], gaps: Mapping[str, Difference], adjusted: Mapping[str, float]) -> str:
    won = [method for method in methods if gaps[method].low > 0 and adjusted[method] < ALPHA]
    lost = [method for method in methods if gaps[method].high < 0]
    verdict = "**Holds**" if len(won) == len(methods) else "**Does not hold**" if lost else "**Open**"
    if 0 < len(won) < len(methods):
        verdict = f"**Holds for {len(won)} of {len(methods)}**"
    told = (
        f"{label(m)} {_interval(gaps[m].estimate, gaps[m].low, gaps[m].high, sign=True)}, p {_p(adjusted[m])}"
        for m in methods
    )
    return f"{verdict}: CPPO minus {'; minus '.join(told)} (Holm)."


# --- where it comes from ----------------------------------------------------------------------------------------------


def _sources(results: Results) -> Iterator[str]:
    base = results.baseline
    if enough_tuples(results.of(TARGET)):
        terms = decomposition(results.of(TARGET)).mean()
        yield (
            f"CPPO's {terms['observed']:.3f} is "
            + " + ".join(f"{float(terms[term]):.3f} {term}" for term in TERMS)
            + ": what independent attempts of its mean rate would reach, what slots add by differing on purpose, and "
            "what failures add that avoid each other."
        )
    for column, what in (("valid", "of its tuples pass the gate"), ("followed", "of its programs follow their plan")):
        share = judged_share(results.of(TARGET), column)
        if not math.isnan(share):
            yield f"{share:.1%} {what}."
    if base in (None, TARGET):
        return
    gap = (results.scores[TARGET].mean(axis=0) - results.scores[str(base)].mean(axis=0)).rename("gap")
    groups = results.attempts.drop_duplicates("problem_id").set_index("problem_id")["group"]
    by_group = gap.groupby(groups).mean().sort_values()
    if len(by_group) > 1:
        yield (
            f"CPPO is above {label(str(base))} in {int((by_group > 0).sum())} of {len(by_group)} groups of problems: "
            f"least in {by_group.index[0]} ({by_group.iloc[0]:+.3f}), most in {by_group.index[-1]} "
            f"({by_group.iloc[-1]:+.3f})."
        )


# --- choices ----------------------------------------------------------------------------------------------------------


def _choices(results: Results) -> Iterator[str]:
    gaps = {method: difference(results, method, TARGET) for method in results.ablations}
    adjusted = dict(zip(gaps, holm([gap.p_value for gap in gaps.values()]), strict=True))
    for name, arms in CHOICES.items():
        here = [arm for arm in arms if arm in gaps]
        if not here:
            continue
        matter = [arm for arm in here if adjusted[arm] < ALPHA]
        verdict = "It matters" if matter else "No difference was found"
        yield (
            f"*{name[0].upper()}{name[1:]}.* {verdict}: "
            + "; ".join(_ablation(results, arm, gaps[arm], adjusted[arm]) for arm in here)
            + f". Found with 80 % power: differences of {span([detectable(gaps[arm]) for arm in here])}."
        )
    sweep = [arm for arm in results.sizes if arm in SWEEP]
    if sweep:
        told = (f"K = {results.sizes[arm]} {pass_at_k(results.of(arm)):.3f}" for arm in [*sweep, TARGET])
        yield f"*K.* pass@K of arms trained and evaluated at their own K: {', '.join(told)}; T5 has their ceilings."
    if len(gaps) > 1:
        yield f"p is adjusted over these {len(gaps)} arms together; T3 and T4 adjust over their own rows."
    if not gaps and not sweep:
        yield "These records hold no arm that changes one of CPPO's choices (reward and gate, credit, grouping, K)."


def _ablation(results: Results, arm: str, gap: Difference, adjusted: float) -> str:
    score = results.scores[arm].mean_score()
    text = f"{label(arm)} {score:.3f} ({_interval(gap.estimate, gap.low, gap.high, sign=True)}, p {_p(adjusted)}"
    if results.ceilings is not None:
        side = "above" if score > float(results.ceilings["independent"]) else "below"
        text += f", {side} the independent ceiling"
    followed = judged_share(results.of(arm), "followed")
    return text + (")" if math.isnan(followed) else f", plan followed {followed:.3f})")


# --- limits -----------------------------------------------------------------------------------------------------------


def _limits(results: Results) -> Iterator[str]:
    if results.limit:
        yield f"Only the first {results.limit} problems were used: this is a first look."
    yield from filter(None, (caveat([Cell("", results)]) for caveat in (seeds_caveat, cut_caveat, training_caveat)))
    if results.arms:
        runs = results.metrics[results.metrics["arm"].isin(results.arms)].groupby(["arm", "seed"])
        steps, programs = (span(list(each), render.count) for each in (runs["step"].max(), runs["programs"].sum()))
        yield f"An arm is {steps} steps of RL on {programs} programs: longer training may do otherwise."
        yield from _cut_in_training(results)
    if results.params.benchmark == "crossroads":
        yield "crossroads is a world made to show coordination; it says nothing about the size of a gain elsewhere."
    yield "Programs are what is charged: planner tokens, which differ between methods, are in T6."


def _cut_in_training(results: Results) -> Iterator[str]:
    """Which limits on tokens have cut what arms wrote while they were trained, and how much of it."""
    steps = results.metrics[results.metrics["arm"].isin(results.arms)]
    for column, limit in (("plans_cut", "max_plan_tokens"), ("programs_cut", "max_program_tokens")):
        shares = steps.groupby("arm")[column].mean() if column in steps else pd.Series(dtype=float)
        if shares.max() >= HARDLY:
            what = column.removesuffix("_cut")
            yield f"In training {limit} cut {span(list(shares))} of an arm's {what}: with more room it may learn more."


def _interval(value: float, low: float, high: float, *, sign: bool = False) -> str:
    form = render.signed if sign else render.share
    return f"{form(value)} [{form(low)}, {form(high)}]"


def _p(value: float) -> str:
    text = render.p_value(value)
    return text if text.startswith("<") else f"= {text}"
