"""What the tiny world must show, checked against the records, and the README's results.

A run of crossroads is right when GRPO collapses, PKPO climbs to the independent ceiling and no
further, and CPPO crosses it on its way to the coordinated ceiling. `claims` says which of these
hold, with intervals. No number in the README is typed by hand: what stands between its markers is
put there from the files that 05_paper_tables and 06_figures wrote.

    python -m cppo_lib.report.claims            # from figures/ into README.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import CPPOError
from cppo_lib.evaluation.bootstrap import Difference, Interval, bootstrap_interval
from cppo_lib.report import render
from cppo_lib.report.comparisons import difference, draws
from cppo_lib.report.results import Results, label

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLAIMS = "claims.md"
NEAR_CEILING = 0.08  # PKPO ends within this of the independent ceiling
SHARE_OF_CEILING = 0.85  # CPPO reaches this share of the coordinated ceiling


@dataclass(frozen=True)
class Claim:
    """A statement about the results, whether it holds, and the numbers behind that."""

    text: str
    holds: bool
    evidence: str

    def __str__(self) -> str:
        return f"[{'x' if self.holds else ' '}] {self.text}: {self.evidence}"


def claims(results: Results) -> list[Claim]:
    """The claims that the evaluated methods allow to check, in the order of the story.

    Order alone decides the comparisons of two methods; the interval of their difference says how
    sure it is. Only the claim that CPPO crosses the ceiling asks for an interval that excludes it.
    """
    found = [*_against_ceilings(results), *_between_methods(results)]
    return [claim for claim in found if claim is not None]


def _against_ceilings(results: Results) -> list[Claim | None]:
    if results.ceilings is None:
        return []
    independent = float(results.ceilings["independent"])
    coordinated = float(results.ceilings["coordinated"])
    answers: list[Claim | None] = []
    if "cppo" in results.methods:
        cppo = _interval(results, "cppo")
        share = cppo.estimate / coordinated
        limits = f"[{cppo.low / coordinated:.1%}, {cppo.high / coordinated:.1%}]"
        answers += [
            Claim(
                "CPPO is above the independent ceiling",
                cppo.low > independent,
                f"{_text(cppo)} against {independent:.3f}",
            ),
            Claim(
                f"CPPO reaches {SHARE_OF_CEILING:.0%} of the coordinated ceiling",
                share >= SHARE_OF_CEILING,
                f"{share:.1%} {limits} of {coordinated:.3f}",
            ),
        ]
    if "pkpo" in results.methods:
        pkpo = _interval(results, "pkpo")
        answers.append(
            Claim(
                f"PKPO is below the independent ceiling and within {NEAR_CEILING} of it",
                independent - NEAR_CEILING <= pkpo.estimate < independent,
                f"{_text(pkpo)} against {independent:.3f}",
            )
        )
    return answers


def _between_methods(results: Results) -> list[Claim | None]:
    return [
        _higher(results, "cppo", "pkpo"),
        _higher(results, "pkpo", "grpo"),
        _higher(results, "sft", "direct"),
        _higher(results, "cppo", "sft"),
    ]


def _higher(results: Results, a: str, b: str) -> Claim | None:
    if a not in results.methods or b not in results.methods:
        return None
    gap = difference(results, a, b)
    text = f"{label(a)} is above {label(b)}"
    return Claim(text, gap.estimate > 0, f"difference {_signed(gap)}, p {_p(gap)}")


def _interval(results: Results, method: str) -> Interval:
    return bootstrap_interval(results.scores[method], **draws(results))


def _text(interval: Interval) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _signed(gap: Difference) -> str:
    return f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _p(gap: Difference) -> str:
    text = render.p_value(gap.p_value)
    return text if text.startswith("<") else f"= {text}"


def write_claims(found: Sequence[Claim], folder: Path) -> Path:
    """Write `claims.md`, a list with a tick before each claim that holds."""
    return store.write_text(folder / CLAIMS, "".join(f"- {claim}\n" for claim in found))


def readme_block(folder: Path, *, readme: Path) -> str:
    """The README's results from the files in `folder`: headline figure, main table, claims.

    Raises:
        MissingArtefactError: the folder lacks one of them.
    """
    figure = paths.require(folder / "fig1_headline.png", notebook="06_figures")
    table = paths.require(folder / "T1_main.md", notebook="05_paper_tables")
    found = paths.require(folder / CLAIMS, notebook="05_paper_tables")
    link = os.path.relpath(figure, readme.parent).replace(os.sep, "/")
    texts = [path.read_text(encoding="utf-8") for path in (table, found)]
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
    if new == text:
        return False
    store.write_text(readme, new)
    return True


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
