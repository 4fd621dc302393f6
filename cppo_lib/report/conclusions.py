"""The results in words, from the records: what a run of crossroads must show, what holds of the abstract, the README.

`claims.md` has a tick for each statement that a run of crossroads meets, of those that were written down before it:
GRPO collapses, PKPO climbs to the independent ceiling and no further, CPPO as released crosses it, and CPPO with a
faithful solver goes on to most of the coordinated ceiling. A statement that is missed stays, without its tick.

`reading.md` says which claims of the paper's abstract hold, by how much, and what they hang on. The abstract claims
that under the same budget of K programs CPPO beats direct sampling, planning baselines, planner-only SFT and
pass@K-oriented RL, by exploring jointly and under a gate that pays for valid tuples only. A claim holds here if the
interval of the difference lies above 0 and Holm's adjustment over all of them agrees. Which of CPPO's choices matter is
read from its ablations, where they were evaluated.

No number in the README is typed by hand: what stands between its markers is put there from the files that
05_paper_tables and 06_figures wrote.

    python -m cppo_lib.report.conclusions            # from figures/ into README.md
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import CPPOError
from cppo_lib.evaluation.bootstrap import Difference
from cppo_lib.evaluation.decomposition import TERMS, decomposition
from cppo_lib.evaluation.diversity import known_share
from cppo_lib.evaluation.estimators import pass_at_k
from cppo_lib.report import render
from cppo_lib.report.comparisons import ALPHA, best_difference, by_holm, detectable, difference
from cppo_lib.report.methods import CHOICES, FAITHFUL, RIVALS, SIZE, TARGET, VARIANT, family, label
from cppo_lib.report.results import Results
from cppo_lib.report.tables.attempts import enough_tuples
from cppo_lib.report.tables.main import HARDLY, cut_caveat, in_words, seeds_caveat, span, training_caveat

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CHECKS, READING = "claims.md", "reading.md"
NEAR_CEILING = 0.08  # PKPO ends within this of the independent ceiling
SHARE_OF_CEILING = 0.85  # CPPO with a faithful solver reaches this share of the coordinated ceiling


# --- what crossroads must show ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """A statement about the results, whether it holds, and the numbers behind that."""

    text: str
    holds: bool
    evidence: str

    def __str__(self) -> str:
        return f"[{'x' if self.holds else ' '}] {self.text}: {self.evidence}"


def checks(results: Results) -> list[Check]:
    """The statements that the evaluated methods allow to check, in the order of the story.

    Of CPPO as released we asked before its run that it be above the independent ceiling with its whole interval, above
    PKPO and above planner-only SFT; of the faithful solver that it reach 85 % of the coordinated ceiling, and be above
    CPPO as released, whose solver earns most by writing the likeliest program (notebook 03).

    Order alone decides the comparisons of two methods; the interval of their difference says how sure it is. Only the
    statement that CPPO crosses the ceiling asks for an interval that excludes it.
    """
    return [*_against_ceilings(results), *_between_methods(results)]


def _against_ceilings(results: Results) -> Iterator[Check]:
    if results.ceilings is None:
        return
    independent, coordinated = (float(results.ceilings[name]) for name in ("independent", "coordinated"))
    names = [name for name in (TARGET, FAITHFUL, "pkpo") if name in results.methods]
    means = {name: results.interval(results.scores[name]) for name in names}
    if cppo := means.get(TARGET):
        beyond = f"{in_words(cppo)} against {independent:.3f}"
        yield Check(f"{label(TARGET)} is above the independent ceiling", cppo.low > independent, beyond)
    if faithful := means.get(FAITHFUL):
        share = faithful.estimate / coordinated
        limits = f"[{faithful.low / coordinated:.1%}, {faithful.high / coordinated:.1%}]"
        text = f"{label(FAITHFUL)} reaches {SHARE_OF_CEILING:.0%} of the coordinated ceiling"
        yield Check(text, share >= SHARE_OF_CEILING, f"{share:.1%} {limits} of {coordinated:.3f}")
    if pkpo := means.get("pkpo"):
        text = f"PKPO is below the independent ceiling and within {NEAR_CEILING} of it"
        near = independent - NEAR_CEILING <= pkpo.estimate < independent
        yield Check(text, near, f"{in_words(pkpo)} against {independent:.3f}")


def _between_methods(results: Results) -> Iterator[Check]:
    story = ((TARGET, "pkpo"), ("pkpo", "grpo"), ("sft", "direct"), (TARGET, "sft"), (FAITHFUL, TARGET))
    for above, below in story:
        if above in results.methods and below in results.methods:
            gap = difference(results, above, below)
            evidence = f"difference {in_words(gap, render.signed)}, {render.p_in_words(gap.p_value)}"
            yield Check(f"{label(above)} is above {label(below)}", gap.estimate > 0, evidence)


# --- the abstract -----------------------------------------------------------------------------------------------------


def reading(results: Results) -> str:
    """What the results say about the abstract's claims, as Markdown.

    Raises:
        ParameterError: records that do not fit (`estimators.check_attempts`).
    """
    title = f"# What these results say\n\n{results.setting()}."
    if TARGET not in results.methods:
        return f"{title}\n\nCPPO is not among the methods that were evaluated, so its claims cannot be checked.\n"
    sections = {
        "Do the abstract's claims hold here?": _abstract(results),
        "Where does the difference come from?": _origin(results),
        "Which choices does it depend on?": _choices(results),
        "What this does not say": _limits(results),
    }
    parts = [f"## {name}\n\n" + "\n".join(f"- {said}" for said in sentences) for name, sentences in sections.items()]
    return "\n\n".join([title, *parts]) + "\n"


def _abstract(results: Results) -> Iterator[str]:
    score = f"pass@{results.k}"
    mean = results.interval(results.scores[TARGET])
    ceiling, top = (float((results.ceilings or {}).get(name, math.nan)) for name in ("independent", "coordinated"))
    if math.isclose(ceiling, top):
        yield f"Both ceilings of these problems are {top:.3f}: they are too few, or K too small, to show coordination."
    elif results.ceilings is not None:
        verdict = "**Holds**" if mean.low > ceiling else "**Open**" if mean.high > ceiling else "**Does not hold**"
        above = (mean.estimate - ceiling) / (top - ceiling)
        way = f"{above:.0%} of the way from there to" if above > 0 else f"{ceiling - mean.estimate:.3f} below that;"
        yield (
            f"*Joint exploration reaches what no independent sampler can.* {verdict}: {score} of CPPO is "
            f"{in_words(mean)}, and no i.i.d. sampler can pass {ceiling:.3f}. CPPO is "
            f"{way} the coordinated ceiling{'' if above > 0 else ' is'} {top:.3f}."
        )
    others = [method for method in results.methods if method != TARGET and family(method) != VARIANT]
    gaps = {method: difference(results, TARGET, method) for method in others}
    adjusted = by_holm(gaps)
    for name in RIVALS:
        if rivals := [method for method in gaps if family(method) == name]:
            yield f"*CPPO beats {name} at the same budget.* {_beats(rivals, gaps, adjusted)}"
    if best := best_difference(results):
        yield (
            f"Against the best of all {len(gaps)} other methods ({label(best.best)}), the choice taken inside the "
            f"bootstrap: {in_words(best, render.signed)}, {render.p_in_words(best.p_value)}."
        )


def _beats(methods: Sequence[str], gaps: Mapping[str, Difference], adjusted: Mapping[str, float]) -> str:
    won = [method for method in methods if gaps[method].low > 0 and adjusted[method] < ALPHA]
    lost = [method for method in methods if gaps[method].high < 0]
    verdict = "**Holds**" if len(won) == len(methods) else "**Does not hold**" if lost else "**Open**"
    if 0 < len(won) < len(methods):
        verdict = f"**Holds for {len(won)} of {len(methods)}**"
    told = (f"{label(m)} {in_words(gaps[m], render.signed)}, {render.p_in_words(adjusted[m])}" for m in methods)
    return f"{verdict}: CPPO minus {'; minus '.join(told)} (Holm)."


def _origin(results: Results) -> Iterator[str]:
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
        share = known_share(results.of(TARGET), column)
        if not math.isnan(share):
            yield f"{share:.1%} {what}."
    if base in (None, TARGET):
        return
    gap = (results.scores[TARGET].mean(axis=0) - results.scores[str(base)].mean(axis=0)).rename("gap")
    by_group = gap.groupby(results.groups).mean().sort_values()
    if len(by_group) > 1:
        yield (
            f"CPPO is above {label(str(base))} in {int((by_group > 0).sum())} of {len(by_group)} groups of problems: "
            f"least in {by_group.index[0]} ({by_group.iloc[0]:+.3f}), most in {by_group.index[-1]} "
            f"({by_group.iloc[-1]:+.3f})."
        )


def _choices(results: Results) -> Iterator[str]:
    gaps = {method: difference(results, method, TARGET) for method in results.ablations}
    adjusted = by_holm(gaps)
    for name in CHOICES:
        arms = [arm for arm in gaps if family(arm) == name]
        if not arms:
            continue
        verdict = "It matters" if min(adjusted[arm] for arm in arms) < ALPHA else "No difference was found"
        yield (
            f"*{name[0].upper()}{name[1:]}.* {verdict}: "
            + "; ".join(_ablation(results, arm, gaps[arm], adjusted[arm]) for arm in arms)
            + f". Found with 80 % power: differences of {span([detectable(gaps[arm]) for arm in arms])}."
        )
    sweep = [arm for arm in results.sizes if family(arm) == SIZE]
    if sweep:
        told = (f"K = {results.sizes[arm]} {pass_at_k(results.of(arm)):.3f}" for arm in [*sweep, TARGET])
        yield f"*K.* pass@K of arms trained and evaluated at their own K: {', '.join(told)}; T5 has their ceilings."
    if len(gaps) > 1:
        yield f"p is adjusted over these {len(gaps)} arms together; T3 and T4 adjust over their own rows."
    if not gaps and not sweep:
        yield "These records hold no arm that changes one of CPPO's choices (reward, gate, credit, grouping, loss, K)."


def _ablation(results: Results, arm: str, gap: Difference, adjusted: float) -> str:
    score = results.scores[arm].mean_score()
    text = f"{label(arm)} {score:.3f} ({in_words(gap, render.signed)}, {render.p_in_words(adjusted)}"
    if results.ceilings is not None:
        side = "above" if score > float(results.ceilings["independent"]) else "below"
        text += f", {side} the independent ceiling"
    followed = known_share(results.of(arm), "followed")
    return text + (")" if math.isnan(followed) else f", plan followed {followed:.3f})")


def _limits(results: Results) -> Iterator[str]:
    if results.limit:
        yield f"Only the first {results.limit} problems were used: this is a first look."
    yield from filter(None, (caveat([results]) for caveat in (seeds_caveat, cut_caveat, training_caveat)))
    if results.arms:
        steps = results.metrics[results.metrics["arm"].isin(results.arms)]
        runs = steps.groupby(["arm", "seed"])
        lengths, programs = (span(list(each), render.count) for each in (runs["step"].max(), runs["programs"].sum()))
        yield f"An arm is {lengths} steps of RL on {programs} programs: longer training may do otherwise."
        for what in ("plan", "program"):
            column = f"{what}s_cut"
            shares = steps.groupby("arm")[column].mean() if column in steps else pd.Series(dtype=float)
            if shares.max() >= HARDLY:
                yield (
                    f"In training max_{what}_tokens cut {span(list(shares))} of an arm's {what}s: with more room it "
                    "may learn more."
                )
    if results.params.benchmark == "crossroads":
        yield "crossroads is a world made to show coordination; it says nothing about the size of a gain elsewhere."
    yield "Programs are what is charged: planner tokens, which differ between methods, are in T6."


# --- files ------------------------------------------------------------------------------------------------------------


def write_conclusions(results: Results, folder: Path) -> list[Path]:
    """Write `claims.md`, a list with a tick before each statement that holds, and `reading.md`."""
    ticks = "".join(f"- {check}\n" for check in checks(results))
    return [store.write_text(folder / CHECKS, ticks), store.write_text(folder / READING, reading(results))]


def readme_block(folder: Path, *, readme: Path) -> str:
    """The README's results from the files in `folder`: headline figure, main table, checks.

    Raises:
        MissingArtefactError: the folder lacks one of them.
    """
    figure = paths.require(folder / "fig1_headline.png", notebook="06_figures")
    files = [paths.require(folder / name, notebook="05_paper_tables") for name in ("T1_main.md", CHECKS)]
    link = os.path.relpath(figure, readme.parent).replace(os.sep, "/")
    texts = [path.read_text(encoding="utf-8") for path in files]
    return "\n".join([f"![Headline: pass@K of each method and both ceilings]({link})\n", *texts])


def update_readme(readme: Path, block: str) -> bool:
    """Put `block` between the markers; True if that changed the file.

    Raises:
        CPPOError: the README lacks a marker.
    """
    text = readme.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise CPPOError(f"{paths.show(readme)} needs the lines {BEGIN} and {END} around its results")
    new = f"{head}{BEGIN}\n{block}{END}{tail}"
    if new != text:
        store.write_text(readme, new)
    return new != text


def main() -> int:
    """Bring the README's results up to date with `figures/`."""
    readme, folder = paths.root() / "README.md", paths.root() / "figures"
    try:
        changed = update_readme(readme, readme_block(folder, readme=readme))
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{paths.show(readme)}: {'updated' if changed else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
